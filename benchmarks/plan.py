"""A plan: which records a run makes, and how the lists of the command line are read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks import configs

METRICS = ("jax", "standard", "both")


class Cell(NamedTuple):
    """What identifies a record; `fingerprint` is that of the method's configuration."""

    task: str
    method: str
    fingerprint: str
    budget: int
    observation: int
    seed: int

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Cell:
        """Return the identity of a record."""
        return cls(*(record[name] for name in cls._fields))


class Block(NamedTuple):
    """Cells that share their simulations: the unit of work of one process."""

    task: str
    budget: int
    seed: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """The grid of records to make.

    Attributes:
        tasks: Names of tasks.
        methods: Name → readable configuration.
        budgets: Numbers of simulations.
        observations: Numbers of the tasks' observations, 1 to 10.
        seeds: Each gives its own simulations, initialisations and draws.
        metric: "jax", "standard" (scikit-learn) or "both".
        scored: Draws that are compared with as many of the reference.
    """

    tasks: tuple[str, ...]
    methods: Mapping[str, Mapping[str, Any]]
    budgets: tuple[int, ...]
    observations: tuple[int, ...]
    seeds: tuple[int, ...] = (0,)
    metric: str = "jax"
    scored: int = configs.DRAWS

    def blocks(self) -> list[Block]:
        """Return the units of work, small budgets first: they show what works soonest."""
        return [
            Block(task, budget, seed)
            for budget in self.budgets
            for seed in self.seeds
            for task in self.tasks
        ]

    def cells(self, block: Block, method: str) -> list[Cell]:
        """Return the cells of one training."""
        mark = configs.fingerprint(self.methods[method])
        return [
            Cell(block.task, method, mark, block.budget, observation, block.seed)
            for observation in self.observations
        ]

    def all_cells(self) -> Iterator[Cell]:
        """Yield every cell of the plan."""
        for block in self.blocks():
            for method in self.methods:
                yield from self.cells(block, method)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """Return the plan that `to_json` wrote; other keys are ignored."""
        fields = {field.name: data[field.name] for field in dataclasses.fields(cls)}
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})


def make(
    tasks: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    budgets: Sequence[int] = (1000,),
    observations: Sequence[int] = (1,),
    seeds: Sequence[int] = (0,),
    metric: str = "jax",
    scored: int | None = None,
) -> Plan:
    """Return a plan of known names; all tasks and the default methods where none are given.

    Raises:
        ValueError: If a name is not known (the known ones are listed) or a number is out of range.
    """
    tasks = known("task", tasks or configs.task_names(), configs.task_names())
    methods = known("method", methods or configs.default_methods(), tuple(configs.METHODS))
    if bad := [n for n in observations if not 1 <= n <= 10]:
        raise ValueError(f"--observations: expected numbers from 1 to 10, got {bad[0]}.")
    if bad := [n for n in budgets if n < 10]:
        raise ValueError(f"--budgets: expected at least 10 simulations, got {bad[0]}.")
    if metric not in METRICS:
        raise ValueError(f"--metric: expected one of {', '.join(METRICS)}, got {metric!r}.")
    scored = configs.DRAWS if scored is None else scored
    if not 100 <= scored <= configs.DRAWS:
        raise ValueError(f"--c2st-draws: expected 100 to {configs.DRAWS:,}, got {scored}.")
    described = {name: configs.configuration(name) for name in methods}
    return Plan(tasks, described, tuple(budgets), tuple(observations), tuple(seeds), metric, scored)


def known(what: str, names: Sequence[str], allowed: Sequence[str]) -> tuple[str, ...]:
    """Return the names once each, or raise a ValueError that lists the allowed ones."""
    for name in names:
        if name not in allowed:
            raise ValueError(f"unknown {what} {name!r}; the known ones are: {', '.join(allowed)}.")
    return tuple(dict.fromkeys(names))


def numbers(text: str) -> tuple[int, ...]:
    """Read "1000,10000", "1-10" or "1-3,7"; "1e4" and "10_000" are numbers too.

    Raises:
        ValueError: If a part is not a whole number or a rising range.
    """
    found: list[int] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        # 1e-3 is not a range, and no budget is that small.
        low, dash, high = part.partition("-")
        first = _whole(low, text)
        last = _whole(high, text) if dash else first
        if last < first:
            raise ValueError(f"expected a rising range such as 1-10, got {part!r}.")
        found.extend(range(first, last + 1))
    if not found:
        raise ValueError(f"expected numbers such as 1000,10000 or 1-10, got {text!r}.")
    return tuple(dict.fromkeys(found))


def _whole(text: str, whole: str) -> int:
    try:
        value = float(text)
    except ValueError:
        value = 0.5
    if value != int(value):
        raise ValueError(f"expected numbers such as 1000,10000 or 1-10, got {whole!r}.")
    return int(value)


def words(text: str) -> tuple[str, ...]:
    """Read "two_moons,slcp"."""
    return tuple(filter(None, (part.strip() for part in text.split(","))))
