"""The command line: `python -m benchmarks [run | report | list | peers]`."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

DEFAULT_OUT = Path("benchmark_output")
DEFAULT_MINUTES = 9.5
REPORT_MINUTES = 0.75
"""Kept free at the end of a limited run, for the figures and the report."""
T = TypeVar("T")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["peers"]:
        # Its options are its own, and its imports are not wanted by anyone else.
        return int(importlib.import_module("benchmarks.peers").main(arguments[1:]) or 0)
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        return options.command(options)
    except (ValueError, FileNotFoundError) as error:
        parser.exit(2, f"error: {error}\n")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Both roads of simulation-based inference, on the standard tasks, against "
        "reference posteriors. Without a command: the ten-minute default.",
    )
    parser.set_defaults(command=_default)
    _output_options(parser)
    commands = parser.add_subparsers(title="commands", metavar="")
    _add_run(commands)
    report = commands.add_parser("report", help="write table, figures and report.html again")
    report.add_argument("directory", type=Path, help="the --out of a run")
    report.set_defaults(command=_report)
    listing = commands.add_parser("list", help="list tasks, and methods with their configurations")
    listing.set_defaults(command=_list)
    commands.add_parser("peers", help="run other libraries on the same tasks (peers --help)")
    return parser


def _add_run(commands: Any) -> None:
    run = commands.add_parser("run", help="run a grid of tasks, methods, budgets and observations")
    run.add_argument("--tasks", metavar="A,B", help="all by default; see `list`")
    run.add_argument("--methods", metavar="A,B", help="by default both roads; see `list`")
    run.add_argument("--budgets", metavar="N,M", default="1000", help="numbers of simulations")
    run.add_argument("--observations", metavar="1-10", default="1-10", help="of the ten")
    run.add_argument("--seed", metavar="S", default="0", help="one or several: 0 or 0-4")
    run.add_argument(
        "--metric", default="jax", help="the C2ST: jax (default), standard (scikit-learn) or both"
    )
    run.add_argument(
        "--c2st-draws",
        type=_positive,
        metavar="N",
        help="draws that the C2ST compares with as many of the reference (default: all 10,000)",
    )
    run.add_argument(
        "--jobs",
        type=_positive,
        default=1,
        help="processes, each with its share of the cores (default 1: timings use all cores)",
    )
    _output_options(run, suppress=True)
    run.set_defaults(command=_run)


def _output_options(parser: argparse.ArgumentParser, *, suppress: bool = False) -> None:
    """Options that the default run and `run` share; a subcommand must not reset their values."""

    def default(value: Any) -> Any:
        return argparse.SUPPRESS if suppress else value

    parser.add_argument(
        "--out", type=Path, default=default(DEFAULT_OUT), help=f"directory [{DEFAULT_OUT}]"
    )
    parser.add_argument(
        "--max-minutes",
        type=_positive_float,
        default=default(None),
        help=f"wall-clock limit; the rest is marked 'not run' [default run: {DEFAULT_MINUTES}]",
    )
    parser.add_argument(
        "--no-cache",
        action="store_true",
        default=default(False),
        help="compile everything anew, and keep nothing on disk",
    )
    parser.add_argument(
        "--quiet", action="store_true", default=default(False), help="no progress bar"
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {text}")
    return value


def _positive_float(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text}")
    return value


def _default(options: argparse.Namespace) -> int:
    from benchmarks import configs, environment, plan

    jobs = min(environment.cores(), configs.DEFAULT_MAX_JOBS)
    chosen = plan.make(
        budgets=configs.DEFAULT_BUDGETS,
        observations=configs.DEFAULT_OBSERVATIONS,
        scored=configs.DEFAULT_SCORED,
    )
    minutes = options.max_minutes or DEFAULT_MINUTES
    return _execute(chosen, options, jobs, max(minutes - REPORT_MINUTES, 0.5 * minutes))


def _run(options: argparse.Namespace) -> int:
    from benchmarks import plan

    chosen = plan.make(
        tasks=plan.words(options.tasks) if options.tasks else None,
        methods=plan.words(options.methods) if options.methods else None,
        budgets=_named("--budgets", plan.numbers, options.budgets),
        observations=_named("--observations", plan.numbers, options.observations),
        seeds=_named("--seed", plan.numbers, options.seed),
        metric=options.metric,
        scored=options.c2st_draws,
    )
    return _execute(chosen, options, options.jobs, options.max_minutes)


def _named(option: str, read: Callable[[str], T], text: str) -> T:
    try:
        return read(text)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None


def _execute(plan: Any, options: argparse.Namespace, jobs: int, minutes: float | None) -> int:
    from benchmarks import schedule
    from jaxsbi.tasks import references

    begin = time.time()
    references.find_wheel()  # fetched once, before several processes want it
    how = schedule.Options(
        out=options.out,
        jobs=jobs,
        max_minutes=minutes,
        cache=not options.no_cache,
        progress=not options.quiet,
    )
    results, interrupted = schedule.run_plan(plan, how)
    _write(options.out, results)
    print(f"total: {(time.time() - begin) / 60:.1f} minutes")
    return 130 if interrupted else 0


def _report(options: argparse.Namespace) -> int:
    from benchmarks import records

    if not (options.directory / records.JOURNAL).is_file():
        raise FileNotFoundError(
            f"{options.directory}: expected the output directory of a run, found no "
            f"{records.JOURNAL} in it. Make one with: python -m benchmarks run --out "
            f"{options.directory}"
        )
    _write(options.directory, records.write_results(options.directory))
    return 0


def _write(out: Path, results: dict[str, Any]) -> None:
    """Print the table, and write figures and report."""
    from benchmarks import report, summary, table

    rows = summary.rows(summary.current(results))
    print("\n" + table.text_table(rows, summary.crossovers(rows)) + "\n")
    page = report.write_report(out, results)
    print(f"results: {out / 'results.json'}\nreport:  {page}")


def _list(options: argparse.Namespace) -> int:
    import json

    import jaxsbi
    from benchmarks import configs

    del options
    print("tasks (each has 10 observations with 10,000 reference draws):")
    for name in configs.task_names():
        task = jaxsbi.tasks.get(name)
        likelihood = "likelihood known" if task.log_likelihood else "likelihood intractable"
        print(f"  {name:24} {task.dim:2} parameters, data {task.x_shape}, {likelihood}")
    print("\nmethods:")
    for name, entry in configs.METHODS.items():
        config = configs.configuration(name)
        print(f"  {name:10} {entry.road}: {entry.text}  [{configs.fingerprint(config)}]")
        print("    " + json.dumps(config))
    return 0


if __name__ == "__main__":
    sys.exit(main())
