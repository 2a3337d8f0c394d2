"""Does the JAX twin of the C2ST agree with scikit-learn's, and how much faster is it?

    python -m benchmarks.c2st_agreement --pairs 200 --out benchmarks/results/c2st_agreement.json
    python -m benchmarks.c2st_agreement --twin     # the twin alone again, after a change of it

Each pair is a reference posterior of a standard task and as many draws that approximate it: 10,000,
or with `--few` 2,500 as in the ten-minute run. They come from a
Gaussian, a mixture or a kernel density fitted to half of it, or from a distorted copy; or, with
`--draws DIR`, the draws of trained posteriors that a run of `python -m benchmarks` has kept. The
twin and scikit-learn score each pair one after the other in one process. CPU seconds are the fair
clock on a shared machine: a pause of the process counts in the wall seconds of whichever ran. The
file is rewritten after every pair; the same command continues where it stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

# One thread for both programs' arithmetic in NumPy. Read when NumPy is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from sklearn.mixture import GaussianMixture

from benchmarks.clock import clocked
from benchmarks.environment import environment
from jaxsbi.diagnostics.c2st import c2st_folds, c2st_standard
from jaxsbi.tasks.references import reference

NUM_DRAWS, FEW_DRAWS = 10_000, 2_500
PLANE = ("two_moons", "gaussian_mixture", "sir")
MIDDLE = ("lotka_volterra", "slcp")
WIDE = ("gaussian_linear_uniform", "gaussian_linear", "bernoulli_glm")
KINDS = (
    "gaussian", "mixture3", "kernel", "widened", "mixture10", "shifted", "truncated", "jitter",
)  # fmt: skip
SCATTER_EVERY = 4  # every such plane pair is scored with a second seed too
SCATTER_PAIRS = 24
LIMIT = 0.01
Report = dict[str, Any]


class Pair(NamedTuple):
    """What identifies a pair: a reference posterior, and how its approximation is made."""

    task: str
    observation: int
    kind: str
    size: int = NUM_DRAWS


def main() -> None:
    """Score pairs until there are as many as asked for; print the summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--few", action="store_true", help=f"{FEW_DRAWS:,} draws per set")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/c2st_agreement.json"))
    parser.add_argument("--twin", action="store_true", help="score the twin again, on all pairs")
    parser.add_argument("--draws", type=Path, help="a benchmark's output with kept draws (*.npz)")
    options = parser.parse_args()
    size = FEW_DRAWS if options.few else NUM_DRAWS
    report = read(options.out)
    if options.twin:
        again(report, options.out)
        return
    done = {Pair(*(record[name] for name in Pair._fields)) for record in report["pairs"]}
    kept = stored(options.draws) if options.draws else {}
    for pair, scatter in schedule(size, tuple(kept)):
        if sum(record["size"] == size for record in report["pairs"]) >= options.pairs:
            break
        if pair in done:
            continue
        draws = kept[pair]() if pair in kept else approximate(pair)
        record = score(pair, draws, scatter, report["compile_seconds"])
        report["pairs"].append(record)
        write(options.out, report)
        print(json.dumps(record), flush=True)
    print(json.dumps(write(options.out, report)["summary"], indent=1))


def again(report: Report, out: Path) -> None:
    """Score the twin again after a change of it, or of JAX.

    The standard's values are kept, and so are all seconds: ratios are of one machine at one time.
    """
    report.setdefault("scored_again", 0)
    for record in report["pairs"][report["scored_again"] :]:
        pair = Pair(*(record[name] for name in Pair._fields))
        draws, theta = approximate(pair), thinned(pair)
        folds = c2st_folds(draws, theta)
        record["twin"] = round(float(folds.accuracy.mean()), 5)
        record["difference"] = round(record["twin"] - record["standard"], 5)
        record["epochs"] = folds.epochs.tolist()
        if "twin_seed2" in record:
            second = c2st_folds(draws, theta, seed=2)
            record["twin_seed2"] = round(float(second.accuracy.mean()), 5)
        report["scored_again"] += 1
        write(out, report)
    del report["scored_again"]
    print(json.dumps(write(out, report)["summary"], indent=1))


def schedule(size: int, kept: tuple[Pair, ...] = ()) -> Iterator[tuple[Pair, bool]]:
    """Yield pairs and whether each is scored with two seeds: first given draws, then made ones.

    Cheap dimensions come often and dear ones seldom: ten pairs in the plane, then one of 4 or 5
    dimensions, and after every other ten one of 10.
    """
    yield from ((pair, False) for pair in kept)
    streams = [made(tasks, size) for tasks in (PLANE, MIDDLE, WIDE)]
    scattered = 0
    for turn in itertools.count():
        plane = list(itertools.islice(streams[0], 10))
        for index, pair in enumerate(plane):
            scatter = (10 * turn + index) % SCATTER_EVERY == 0 and scattered < SCATTER_PAIRS
            scattered += scatter
            yield pair, scatter
        rest = list(itertools.islice(streams[1], 1 if plane else 2))
        rest += itertools.islice(streams[2], 1 if turn % 2 or not plane else 0)
        yield from ((pair, False) for pair in rest)
        if not plane and not rest:
            return


def made(tasks: tuple[str, ...], size: int) -> Iterator[Pair]:
    """Yield every pair of these tasks; neighbours differ in task, observation and kind."""
    for turn in range(10 * len(KINDS)):
        # Each task begins with another kind, so that a short run has met them all.
        for offset, task in enumerate(tasks):
            # 10 and 8 kinds are not coprime: shift by one after each full cycle of 40.
            kind = KINDS[(turn + turn // 40 + 3 * offset) % len(KINDS)]
            yield Pair(task, turn % 10 + 1, kind, size)


def approximate(pair: Pair) -> np.ndarray:
    """Return draws that approximate a reference posterior as the pair's kind says.

    Fits use half of the reference, so that they err as an inference does. Widths are in units of
    its standard deviations.
    """
    theta = reference(pair.task, pair.observation).posterior_samples.astype(np.float64)
    random = np.random.default_rng([pair.observation, KINDS.index(pair.kind), len(pair.task)])
    centre, scale = theta.mean(0), theta.std(0)
    z = (theta - centre) / scale
    half = random.permutation(z)[: len(z) // 2]
    if pair.kind in ("gaussian", "mixture3", "mixture10"):
        count = int(pair.kind.removeprefix("mixture")) if pair.kind != "gaussian" else 1
        fit = GaussianMixture(count, random_state=0, reg_covar=1e-5, max_iter=200).fit(half)
        draws = fit.sample(NUM_DRAWS)[0]
    else:
        draws = half[random.integers(len(half), size=NUM_DRAWS)]
        if pair.kind == "truncated":
            lower = half[half[:, 0] < np.quantile(half[:, 0], 0.85)]
            draws = lower[random.integers(len(lower), size=NUM_DRAWS)]
        silverman = len(half) ** (-1 / (z.shape[1] + 4))
        width = 0.5 * silverman if pair.kind == "kernel" else 0.05
        draws = draws + width * random.normal(size=draws.shape)
        if pair.kind == "widened":
            draws = 1.15 * draws
        if pair.kind == "shifted":
            draws = draws + 0.2 * np.eye(z.shape[1])[0]
    # A mixture's draws are ordered by component.
    draws = random.permutation(draws)[: pair.size]
    return (draws * scale + centre).astype(np.float32)


def stored(folder: Path) -> dict[Pair, Callable[[], np.ndarray]]:
    """Return readers of the draws that a benchmark run kept with its records."""
    found: dict[Pair, Callable[[], np.ndarray]] = {}
    results = json.loads((folder / "results.json").read_text())
    for record in results["records"]:
        path = folder / (record.get("draws_file") or "")
        if record.get("status") != "done" or not path.is_file():
            continue
        kind = f"{record['method']}/{record['budget']}/{record['seed']}"

        def load(path: Path = path) -> np.ndarray:
            with np.load(path) as file:
                return file["draws"]

        found[Pair(record["task"], record["observation"], kind)] = load
    return found


def thinned(pair: Pair) -> np.ndarray:
    """Return as many draws of the reference posterior as the pair has."""
    theta = reference(pair.task, pair.observation).posterior_samples
    return theta[:: len(theta) // pair.size]


def compiled(shape: str, draws: np.ndarray, theta: np.ndarray, seconds: dict[str, float]) -> None:
    """Note the CPU seconds that the twin's compilation takes, the first time a shape is met."""
    if shape not in seconds:
        first = clocked(lambda: c2st_folds(draws, theta))[1]
        warm = clocked(lambda: c2st_folds(draws, theta))[1]
        seconds[shape] = round(first["cpu"] - warm["cpu"], 2)


def score(pair: Pair, draws: np.ndarray, scatter: bool, seconds: dict[str, float]) -> Report:
    """Return one pair's record: both values, their wall and CPU seconds, the twin's epochs."""
    theta = thinned(pair)
    shape = f"{len(draws)}+{len(theta)}x{theta.shape[1]}"
    compiled(shape, draws, theta, seconds)
    folds, twin_time = clocked(lambda: c2st_folds(draws, theta))
    standard, standard_time = clocked(lambda: c2st_standard(draws, theta))
    twin = float(folds.accuracy.mean())
    record = {
        **pair._asdict(),
        "dim": theta.shape[1],
        "shape": shape,
        "standard": round(standard, 5),
        "twin": round(twin, 5),
        "difference": round(twin - standard, 5),
        "epochs": folds.epochs.tolist(),
        "standard_seconds": standard_time,
        "twin_seconds": twin_time,
    }
    if scatter:
        record["standard_seed2"] = round(c2st_standard(draws, theta, seed=2), 5)
        record["twin_seed2"] = round(float(c2st_folds(draws, theta, seed=2).accuracy.mean()), 5)
    return record


def summarise(report: Report) -> Report:
    """Return the agreement, the standard's own scatter over seeds, and the ratios of times."""
    pairs = report["pairs"]
    if not pairs:
        return {"pairs": 0}
    values = np.array([record["standard"] for record in pairs])
    summary = {
        "pairs": len(pairs),
        "by_dim": {
            str(dim): speed([r for r in pairs if r["dim"] == dim], report["compile_seconds"])
            for dim in sorted({record["dim"] for record in pairs})
        },
        "standard_quantiles_0_25_50_75_100": np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist(),
        "agreement": {
            str(size): spread([r["difference"] for r in pairs if r["size"] == size])
            for size in sorted({record["size"] for record in pairs})
        },
        "speed": speed(pairs, report["compile_seconds"]),
    }
    both = [record for record in pairs if "standard_seed2" in record]
    if both:
        summary["standard_seed1_to_seed2"] = spread(
            [r["standard_seed2"] - r["standard"] for r in both]
        )
        summary["twin_to_standard_same_pairs_seed2"] = spread(
            [r["twin_seed2"] - r["standard_seed2"] for r in both]
        )
    return summary


def spread(differences: list[float]) -> Report:
    """Return how far differences lie from zero."""
    size = np.abs(differences)
    return {
        "count": len(size),
        "max": round(float(size.max()), 5),
        "mean": round(float(size.mean()), 5),
        "quantile95": round(float(np.quantile(size, 0.95)), 5),
        "bias": round(float(np.mean(differences)), 5),
        "share_within_0.01": round(float(np.mean(size <= LIMIT + 1e-9)), 4),
    }


def speed(pairs: list[Report], compiled: dict[str, float]) -> Report:
    """Return seconds and ratios, standard over twin; "cold" counts the twin's compilation."""
    summary: Report = {"count": len(pairs)}
    for clock in ("wall", "cpu"):
        standard = np.array([record["standard_seconds"][clock] for record in pairs])
        twin = np.array([record["twin_seconds"][clock] for record in pairs])
        cold = twin + np.array([compiled[record["shape"]] for record in pairs])
        summary[clock] = {
            "standard_median": round(float(np.median(standard)), 2),
            "twin_median": round(float(np.median(twin)), 2),
            "ratio_median": round(float(np.median(standard / twin)), 2),
            "ratio_min": round(float(np.min(standard / twin)), 2),
            "ratio_of_totals": round(float(standard.sum() / twin.sum()), 2),
            "cold_ratio_median": round(float(np.median(standard / cold)), 2),
            "cold_ratio_of_totals": round(float(standard.sum() / cold.sum()), 2),
        }
    return summary


def read(path: Path) -> Report:
    """Return the report so far, or an empty one."""
    if path.is_file():
        return json.loads(path.read_text())
    return {"compile_seconds": {}, "pairs": []}


def write(path: Path, report: Report) -> Report:
    """Replace the report on disk, whole at any time, and return it."""
    report |= {"summary": summarise(report), "environment": environment()}
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(f".{os.getpid()}.part")
    with contextlib.ExitStack() as stack:
        stack.callback(scratch.unlink, missing_ok=True)
        scratch.write_text(json.dumps(report, indent=1) + "\n")
        scratch.replace(path)
    return report


if __name__ == "__main__":
    main()
