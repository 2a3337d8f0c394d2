"""The tasks are the benchmark's: its reference posteriors against our priors and likelihoods."""

import json
from pathlib import Path

import pytest

from benchmarks import validate_tasks
from jaxsbi import tasks

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "task_validation.json"
# The variants' likelihoods equal the plain tasks' (test_likelihoods), their references too.
PLAIN = [name for name in tasks.NAMES if name not in ("slcp_distractors", "bernoulli_glm_raw")]


def test_committed_validation_covers_every_task_and_passes():
    """10,000 draws a side, observations 1 to 3 (made by `python -m benchmarks.validate_tasks`)."""
    records = json.loads(RESULTS.read_text())["records"]
    done = {(record["task"], record["observation"]) for record in records}
    assert done >= {(name, number) for name in tasks.NAMES for number in (1, 2, 3)}
    assert {record["task"]: record["c2st"] for record in records if record["c2st"] > 0.52} == {}


@pytest.mark.slow
@pytest.mark.rank_promotion  # NumPyro's NUTS and the samplers of the script promote ranks
@pytest.mark.key_reuse  # NumPyro's vectorised chains
@pytest.mark.parametrize("name", PLAIN)
def test_our_posterior_is_the_reference(name):
    """The first observation, with fewer draws: chance moves the accuracy by 0.006 or 0.008."""
    n = 4_000 if tasks.get(name).dim < 10 else 2_000  # in ten dimensions a C2ST takes minutes
    draws, _ = validate_tasks.sample(name, 1, 0, n=n)
    reference = tasks.reference(name, 1).posterior_samples[:n]
    assert draws.shape == reference.shape
    assert validate_tasks.c2st_twin(draws, reference) <= 0.52
