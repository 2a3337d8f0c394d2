"""`python -m benchmarks.flow_speed`: how fast the spline coupling flow trains, draws and scores.

With `--python`, the interpreter of an environment that has flowjax, its coupling flow of the same
size takes turns with ours, so that a drift of the machine's speed meets both alike. `--sweep`
compares how far the layers are unrolled and what the compiler is asked for, `--depth` how
compilation grows with the number of layers. Seconds are wall-clock; beside them stand processor
seconds, which a busy machine disturbs less.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.clock import clocked
from benchmarks.environment import environment
from jaxsbi.base import CPU_OPTIONS, LONG_OPTIONS
from jaxsbi.densities import SplineCoupling, coupling

DIM, BATCH, HIDDEN, KNOTS = 10, 256, 50, 10
JOBS = ("train", "draw", "log_prob")
# Of the package's three programs, `fit` and `sample` choose options, `log_prob` takes JAX's.
OPTIONS: dict[str, dict[str, Any]] = {"train": LONG_OPTIONS, "draw": CPU_OPTIONS, "log_prob": {}}
SWEPT: dict[str, dict[str, Any]] = {"none": {}, "short": CPU_OPTIONS, "long": LONG_OPTIONS}
Seconds = dict[str, float]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write a JSON file; see `--help`."""
    arguments = _parse(argv)
    # A program found on disk would hide what a new user waits for.
    jax.config.update("jax_enable_compilation_cache", False)
    document: dict[str, Any] = {
        "command": "python -m benchmarks.flow_speed",
        "sizes": {"dim": DIM, "batch": BATCH, "hidden": HIDDEN, "knots": KNOTS}
        | {name: getattr(arguments, name) for name in ("layers", "steps", "points", "repeat")},
        "environment": environment(),
        "load_before": os.getloadavg()[0],
    }
    if arguments.sweep:
        document["sweep"] = sweep(arguments)
    elif arguments.depth:
        document["depth"] = depth(arguments)
    else:
        document["rows"] = compare(arguments)
        document["ratios"] = ratios(document["rows"], arguments)
    document["load_after"] = os.getloadavg()[0]
    out = Path(arguments.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=1) + "\n")
    print(table(document, arguments))
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flow_speed", description=__doc__)
    parser.add_argument("--python", default=os.environ.get("JAXSBI_FLOWJAX_PYTHON"))
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--steps", type=int, default=300, help="of training, per repetition")
    parser.add_argument("--points", type=int, default=10_000, help="drawn and scored at once")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--sweep", action="store_true", help="unrolling and compiler options")
    parser.add_argument("--depth", default="", help="numbers of layers to compile, 2,8,32 say")
    parser.add_argument("--out", default="benchmarks/results/flow_speed.json")
    return parser.parse_args(argv)


def training_data(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return points and contexts of a curved conditional, each `(steps, batch, d)`."""
    generator = np.random.default_rng(0)
    context = generator.normal(size=(steps, BATCH, DIM))
    noise = generator.normal(size=context.shape)
    z = np.tanh(context) + 0.1 * context[..., ::-1] ** 2 + 0.5 * noise
    return z.astype(np.float32), context.astype(np.float32)


class Ours:
    """The three jobs in this process; `FlowJax` has the same two methods."""

    name = "jaxsbi"

    def __init__(self, arguments: argparse.Namespace, **options: Any) -> None:
        """Make the flow, its optimizer's state, and the data."""
        self.density = SplineCoupling(layers=arguments.layers, hidden=HIDDEN, knots=KNOTS, dim=DIM)
        self.options = {**OPTIONS, **options}
        z, context = map(jnp.asarray, training_data(arguments.steps))
        self.optimizer = optax.adam(5e-4)
        key, observed = jax.random.key(0), context[0, 0]
        params = jax.jit(lambda: self.density.init(key, z[0, 0], observed, method="log_prob"))()
        points = jnp.reshape(z, (-1, DIM))[: arguments.points]
        keys = jax.random.split(key, arguments.points)
        self.inputs: dict[str, tuple] = {
            "train": ((params, self.optimizer.init(params)), z, context),
            "draw": (params, keys, observed),
            "log_prob": (params, points, observed),
        }
        self.compiled: dict[str, Callable[..., Any]] = {}

    def train(self, state: Any, z: Any, context: Any) -> Any:
        """Take one Adam step per batch."""

        def loss(params: Any, z: Any, context: Any) -> Any:
            return -jnp.mean(jax.vmap(self.log_prob, (None, 0, 0))(params, z, context))

        def step(state: Any, batch: Any) -> Any:
            params, moments = state
            value, gradient = jax.value_and_grad(loss)(params, *batch)
            updates, moments = self.optimizer.update(gradient, moments, params)
            return (optax.apply_updates(params, updates), moments), value

        return jax.lax.scan(step, state, (z, context))[1]

    def draw(self, params: Any, key: Any, context: Any) -> Any:
        """Return one draw."""
        return self.density.apply(params, key, context, method="sample_and_log_prob")[0]

    def log_prob(self, params: Any, z: Any, context: Any) -> Any:
        """Return one log-density."""
        return self.density.apply(params, z, context, method="log_prob")

    def compile(self, job: str) -> Seconds:
        """Compile one job anew."""
        function = getattr(self, job)
        if job != "train":
            function = jax.vmap(function, (None, 0, None))
        compiler = self.options[job] if jax.default_backend() == "cpu" else {}

        def make() -> None:
            lowered = jax.jit(function, compiler_options=compiler).lower(*self.inputs[job])
            self.compiled[job] = lowered.compile()

        return clocked(make)[1]

    def run(self, job: str) -> Seconds:
        """Run one job once."""
        return clocked(lambda: jax.block_until_ready(self.compiled[job](*self.inputs[job])))[1]


class FlowJax:
    """The same jobs in a process of flowjax's own environment."""

    name = "flowjax"

    def __init__(self, arguments: argparse.Namespace, data: Path) -> None:
        """Start the process and wait until it has made its flow."""
        command = [arguments.python, str(Path(__file__).parent / "peers" / "flowjax_worker.py")]
        sizes = {"layers": arguments.layers, "hidden": HIDDEN, "knots": KNOTS}
        sizes["points"] = arguments.points
        for name, value in sizes.items():
            command += [f"--{name}", str(value)]
        # Only what the interpreter itself needs: this checkout must not be on its path.
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "JAX_"))}
        self.process = subprocess.Popen(
            [*command, "--data", str(data)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=kept,
        )
        self.versions = self._read()["versions"]

    def _read(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"flowjax stopped with code {self.process.wait()}; see above.")
        return json.loads(line)

    def _ask(self, verb: str, job: str) -> Seconds:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{verb} {job}\n")
        self.process.stdin.flush()
        return self._read()

    def compile(self, job: str) -> Seconds:
        """Compile one job."""
        return self._ask("compile", job)

    def run(self, job: str) -> Seconds:
        """Run one job once."""
        return self._ask("run", job)

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)


def compare(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return one row per library and job, the libraries taking turns at every repetition."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        sides: list[Any] = [Ours(arguments)]
        if arguments.python:
            z, context = training_data(arguments.steps)
            np.savez(Path(folder) / "data.npz", z=z, context=context)
            sides.append(FlowJax(arguments, Path(folder) / "data.npz"))
        for job in JOBS:
            compiled = [side.compile(job) for side in sides]
            for side in sides:  # the first run also fetches memory
                side.run(job)
            runs = [[side.run(job) for side in sides] for _ in range(arguments.repeat)]
            for i, side in enumerate(sides):
                row = {"library": side.name, "job": job, "compile": compiled[i]}
                rows.append(row | {"runs": [turn[i] for turn in runs]})
        for side in sides[1:]:
            rows[-1]["versions"] = side.versions
            side.close()
    return rows


def rate(row: dict[str, Any], arguments: argparse.Namespace, clock: str = "wall") -> float:
    """Return steps, draws or densities per second: the median over the repetitions."""
    amount = arguments.steps if row["job"] == "train" else arguments.points
    return amount / statistics.median(run[clock] for run in row["runs"])


def ratios(rows: list[dict[str, Any]], arguments: argparse.Namespace) -> dict[str, Seconds]:
    """Return ours over theirs for each job, the median over the turns; above 1 we are faster."""
    result = {}
    for job in JOBS:
        pair = [row["runs"] for row in rows if row["job"] == job]
        if len(pair) == 2:
            result[job] = {
                clock: statistics.median(b[clock] / a[clock] for a, b in zip(*pair, strict=True))
                for clock in ("wall", "cpu")
            }
    return result


def sweep(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return training's rows for each unrolling and each set of compiler options."""
    rows = []
    for unroll in (1, 2, arguments.layers):
        for name, options in SWEPT.items():
            with mock.patch.multiple(coupling, UNROLL=unroll):
                side = Ours(arguments, train=options)
                row: dict[str, Any] = {"unroll": unroll, "options": name, "job": "train"}
                row["compile"] = side.compile("train")
            side.run("train")
            row["runs"] = [side.run("train") for _ in range(arguments.repeat)]
            rows.append(row)
    return rows


def depth(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the seconds each job takes to compile, for several numbers of layers."""
    rows = []
    for layers in map(int, arguments.depth.split(",")):
        sizes = argparse.Namespace(**{**vars(arguments), "layers": layers})
        side = Ours(sizes)
        rows.append({"layers": layers, "compile": {job: side.compile(job) for job in JOBS}})
    return rows


def table(document: dict[str, Any], arguments: argparse.Namespace) -> str:
    """Return what was measured as text."""
    lines = []
    for row in document.get("rows", []):
        lines.append(
            f"{row['library']:8} {row['job']:9} compile {row['compile']['wall']:6.2f} s   "
            f"{rate(row, arguments):10,.1f}/s   {rate(row, arguments, 'cpu'):10,.1f}/cpu s"
        )
    for job, ratio in document.get("ratios", {}).items():
        lines.append(f"ours / flowjax, {job}: {ratio['wall']:.2f} (cpu {ratio['cpu']:.2f})")
    for row in document.get("sweep", []):
        total = [row["compile"][c] + 5_000 / rate(row, arguments, c) for c in ("wall", "cpu")]
        lines.append(
            f"unroll {row['unroll']} options {row['options']:5} compile "
            f"{row['compile']['wall']:6.2f} s   {rate(row, arguments):7.1f} steps/s   5,000 steps "
            f"{total[0]:6.1f} s (cpu: {row['compile']['cpu']:6.2f}, "
            f"{rate(row, arguments, 'cpu'):7.1f}, {total[1]:6.1f})"
        )
    for row in document.get("depth", []):
        seconds = "   ".join(
            f"{job} {s['wall']:6.2f} s (cpu {s['cpu']:6.2f})" for job, s in row["compile"].items()
        )
        lines.append(f"{row['layers']:3} layers   {seconds}")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
