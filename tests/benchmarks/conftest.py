"""A benchmark small enough for tests: a method of one parameter, made-up references, no wheel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsbi
from benchmarks import configs, metrics, report
from jaxsbi.base import configuration


@configuration
class Tiny:
    """Learns the mean of the latent parameters, and draws around it."""

    fails: bool = False
    scale: float = 1.0

    def init(self, key, prior, simulations):
        if self.fails:
            raise RuntimeError("this method never works")
        return {"params": {"mean": jnp.zeros(prior.dim)}, "statistics": {}}

    def loss(self, variables, prior, key, batch):
        z = jax.vmap(prior.to_latent)(batch.theta)
        return jnp.sum((z - variables["params"]["mean"][None]) ** 2, axis=-1)

    def sample(self, variables, prior, key, x, n):
        z = self.scale * jax.random.normal(key, (n, prior.dim))
        return jax.vmap(prior.from_latent)(z + variables["params"]["mean"][None]), None

    def log_prob(self, variables, prior, theta, x):
        raise NotImplementedError


def made_up(task, observation, **_):
    shape = jaxsbi.tasks.get(task)
    rng = np.random.default_rng(observation)
    return jaxsbi.tasks.Reference(
        task=task,
        observation=observation,
        x=np.full(shape.x_shape, 0.1, np.float32),
        theta_true=np.zeros(shape.dim, np.float32),
        posterior_samples=rng.normal(size=(400, shape.dim)).astype(np.float32),
    )


def quick_score(draws, reference, metric, scored):
    """A number that depends on every draw, instead of a C2ST."""
    value = float(0.5 + 0.5 * np.tanh(np.abs(draws.mean() - reference.mean())))
    names = ("jax", "standard") if metric == "both" else (metric,)
    used = "jax" if metric == "jax" else "standard"
    scores = dict.fromkeys(names, value)
    return {
        "c2st": value,
        "c2st_metric": used,
        "c2st_all": scores,
        "c2st_draws": 200,
        "c2st_seconds": 0.0,
    }


SAVE = report._save


@pytest.fixture
def real_figures(small, monkeypatch):
    """Draw the figures, which takes more time than all the rest."""
    monkeypatch.setattr(report, "_save", SAVE)


@pytest.fixture
def small(monkeypatch):
    """Replace methods, references, score and figures; return the list of trainings done."""
    fit = {"max_epochs": 2, "patience": 2}
    entries = {
        "npe": configs.Entry(Tiny, "simulation-based", "tiny", fit),
        "emulator": configs.Entry(lambda: Tiny(scale=0.5), "likelihood-based", "tiny", fit),
        "broken": configs.Entry(lambda: Tiny(fails=True), "simulation-based", "fails", fit),
    }
    monkeypatch.setattr(configs, "METHODS", entries)
    monkeypatch.setattr(configs, "DRAWS", 200)
    monkeypatch.setattr(jaxsbi.tasks, "reference", made_up)
    monkeypatch.setattr("jaxsbi.tasks.references.find_wheel", lambda *_: None)
    monkeypatch.setattr(metrics, "score", quick_score)
    monkeypatch.setattr(report, "_save", lambda *_: "data:image/png;base64,AAAA")
    # Nothing outside the test's own directory is to be written.
    monkeypatch.setattr("benchmarks.schedule.use_compilation_cache", lambda _: None)
    trainings = []
    original = jaxsbi.fit

    def fit_and_count(key, method, *arguments, **options):
        trainings.append(method)
        return original(key, method, *arguments, **options)

    monkeypatch.setattr(jaxsbi, "fit", fit_and_count)
    return trainings
