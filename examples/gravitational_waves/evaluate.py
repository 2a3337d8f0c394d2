"""What the network learned, beside the exact likelihood: numbers and figures.

Run `python -m examples.gravitational_waves.evaluate FOLDER` after (or instead of) `dingo`. Every
step writes its result into the folder, and is left out if it is there.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import chi2

import jaxsbi
from benchmarks.environment import write
from examples.gravitational_waves import data, dingo, figures, precessing, problem, reference
from examples.gravitational_waves.files import kept
from jaxsbi.base import Array, Key, Posterior, Theta
from jaxsbi.importance import Weighted
from jaxsbi.importance import weigh as weigh_draws

DRAWS = 50_000
RATIOS = (15.0, 25.0, 45.0)
"""Signal-to-noise ratios of the injections."""
Observation = dict[str, Array]


def weigh(
    key: Key, posterior: Posterior, event: problem.Event, x: Observation, n: int = DRAWS
) -> tuple[Weighted, float]:
    """Return draws weighed by the exact likelihood in double precision, and CPU seconds."""
    start = time.process_time()
    with jax.enable_x64(True):
        prior = problem.prior()
        found = jaxsbi.importance(key, posterior, event.log_likelihood, prior, x, n)
        # Nothing in double precision leaves: elsewhere JAX would warn of it.
        found = jax.tree.map(np.float32, found)
    return jax.tree.map(jnp.asarray, found), time.process_time() - start


def summary(weighted: Weighted) -> dict[str, float]:
    """Return what weighted draws say of themselves."""
    names = ("efficiency", "pareto_k", "log_evidence", "log_evidence_error")
    return {name: float(getattr(weighted, name)) for name in names}


def distances(key: Key, draws: Theta, exact: Theta) -> dict[str, float]:
    """Return the Jensen-Shannon divergence of each marginal, in nats."""
    names = problem.prior().names
    rows = [
        np.stack([np.asarray(d[name], np.float32) for name in names], 1) for d in (draws, exact)
    ]
    found = jaxsbi.diagnostics.marginal_jsd(key, *(jnp.asarray(r[:10_000]) for r in rows))
    return dict(zip(names, np.round(found.jsd, 5).tolist(), strict=True))


def on_event(
    key: Key, posterior: Posterior, event: problem.Event, x: Observation, exact: Theta
) -> dict[str, Any]:
    """Compare the network's and the weighted draws of the real event with the reference."""
    keys = jax.random.split(key, 6)
    # Weights have a tail: how many draws count differs from one set of them to the next.
    repeats = [
        float(weigh(k, posterior, event, x)[0].efficiency) for k in jax.random.split(keys[0], 5)
    ]
    start = time.perf_counter()
    weighted, seconds = weigh(keys[1], posterior, event, x)
    elapsed = time.perf_counter() - start
    resampled = weighted.resample(keys[2], 20_000)
    return {
        **summary(weighted),
        "efficiency_of_others": repeats,
        "seconds": elapsed,
        "cpu_seconds": seconds,
        "draws": DRAWS,
        "jsd_network": distances(keys[3], weighted.draws, exact),
        "jsd_weighted": distances(keys[4], resampled, exact),
        "jsd_floor": distances(keys[5], *_halves(exact)),
    }


def _halves(draws: Theta) -> tuple[Theta, Theta]:
    return tuple({name: a[side::2] for name, a in draws.items()} for side in (0, 1))


def injections(key: Key, posterior: Posterior, event: problem.Event, count: int = 6) -> list[dict]:
    """Weigh the posteriors of simulated events of several strengths, each in several noises."""
    theta = {"chirp_mass": 30.0, "mass_ratio": 0.7, "chi1": 0.2, "chi2": -0.1, "time": 0.012}
    found = []
    for ratio in RATIOS:
        one = {name: jnp.float32(value) for name, value in (theta | {"distance": 1.0}).items()}
        source = event.source(one)
        unit = jnp.linalg.norm(event.signal(one, jnp.zeros(2 * problem.KNOTS), source))
        truth = one | {"distance": unit / ratio}
        key, key_noise, key_draws = jax.random.split(key, 3)
        for k_x, k in zip(
            jax.random.split(key_noise, count), jax.random.split(key_draws, count), strict=True
        ):
            weighted, _ = weigh(k, posterior, event, event.noisy(k_x, truth, source), 10_000)
            weights = jax.nn.softmax(weighted.log_weights)
            ranks = {
                name: float(jnp.sum(jnp.where(draws < truth[name], weights, 0.0)))
                for name, draws in weighted.draws.items()
            }
            found.append({"snr": ratio, **summary(weighted), "ranks": ranks})
    return found


def glitch(amplitude: float = 2e-21) -> np.ndarray:
    """Return a burst of 60 Hz in Hanford 33 ms before the merger, for `data.segment`."""
    times = np.arange(8 * data.RATE) / data.RATE - 6.0 + 0.02
    burst = amplitude * np.exp(-((times / 0.015) ** 2)) * np.sin(2.0 * np.pi * 60.0 * times)
    return np.stack([burst, 0.0 * burst])


def unexplained(
    key: Key, event: problem.Event, weighted: Weighted, x: Observation
) -> dict[str, float]:
    """Return what the best of the weighted draws leaves of the data, and its p-value."""
    some = weighted.resample(key, 1000)
    left = float(np.min(jax.jit(jax.vmap(lambda theta: event.left(theta, x)))(some)))
    freedom = x["strain"].size - len(problem.prior().names) - 1
    return {"chi_square": left, "freedom": freedom, "p_value": chi2.sf(left, freedom)}


def failures(key: Key, posterior: Posterior, event: problem.Event) -> dict[str, Any]:
    """Ask the diagnostics about the event as it is, with a glitch, and with a wrong spectrum."""
    keys = jax.random.split(key, 4)
    prior = problem.prior()
    fresh = jaxsbi.simulate(keys[0], prior, event.simulate, 4000, progress=False)
    segment = data.segment()
    wrong = np.where(segment.frequency < 80.0, 0.5, 1.0)[None] * segment.asd
    wrong_event, x_wrong = problem.observe(segment._replace(asd=wrong))
    cases = {
        "as measured": (event, problem.observe(segment)[1]),
        "with a glitch": (event, problem.observe(data.segment(extra=glitch()))[1]),
        "with a wrong spectrum": (wrong_event, x_wrong),
    }
    found, draws = {}, {}
    for name, (law, x) in cases.items():
        weighted, _ = weigh(keys[1], posterior, law, x)
        tests = {
            label: jaxsbi.diagnostics.misspecification(keys[2], fresh, x, summary=how).p_value
            for label, how in (("data", None), ("summary", posterior))
        }
        found[name] = summary(weighted) | {
            "misspecification": tests,
            "residual": unexplained(keys[3], law, weighted, x),
        }
        draws[name] = {
            "network": np.asarray(weighted.draws["chirp_mass"]),
            "weight": np.asarray(jax.nn.softmax(weighted.log_weights)),
        }
    return {"numbers": found, "draws": draws}


def likelihoods(event: problem.Event, x: Observation, exact: Theta) -> dict[str, Any]:
    """Compare log-likelihoods on three grids, and with the published ones."""
    drawn = data.published()
    rows = np.random.default_rng(1).choice(len(drawn["tc"]), 60, replace=False)
    found = reference.published_ratios({name: values[rows] for name, values in drawn.items()})
    expected = drawn["log_ratio"][rows]
    segment = data.segment()
    some = {name: jnp.asarray(values[:200]) for name, values in exact.items()}
    with jax.enable_x64(True):
        fine = jax.jit(jax.vmap(lambda t: event.log_likelihood(t, x)))(some)
    whole = reference.whittle(segment, {name: values[:200] for name, values in exact.items()})
    return {
        "published_correlation": float(np.corrcoef(found, expected)[0, 1]),
        "published_scatter": float(np.std(found - expected)),
        "published_offset": float(np.mean(found - expected)),
        **reweighted(),
        "frequencies": len(segment.frequency),
        "mismatch": mismatches(segment),
        "error_on_the_grid": float(np.std(np.asarray(fine) - whole)),
    }


def mismatches(segment: data.Segment) -> dict[int, dict[str, float]]:
    """Return the grid's mismatch over draws of the prior, for several numbers of nodes."""
    draws = jax.vmap(problem.prior().sample)(jax.random.split(jax.random.key(8), 2000))
    found = {}
    for count in (72, 112, 144):
        lost = problem.mismatch(problem.observe(segment, count=count)[0], segment, draws)
        found[count] = {
            "median": float(np.median(lost)),
            "95 %": float(np.quantile(lost, 0.95)),
            "largest": float(np.max(lost)),
        }
    return found


def reweighted() -> dict[str, Any]:
    """Weigh all published draws by our likelihood over theirs: does the posterior stay the same?

    No independent sampler, but the marginals that it would find if the published one had converged.
    """
    drawn = precessing.published_draws()
    expected = drawn.pop("log_ratio")
    with jax.enable_x64(True):
        one = precessing.likelihood()
        score = jax.jit(lambda theta: jax.lax.map(one, theta, batch_size=200))
        found = np.asarray(score({name: jnp.asarray(values) for name, values in drawn.items()}))
    weighted = weigh_draws(drawn, jnp.asarray(found - expected, jnp.float32))
    key_pick, key_jsd = jax.random.split(jax.random.key(9))
    rows = precessing.comparable(drawn)
    again = precessing.comparable(weighted.resample(key_pick, len(expected)))
    names = tuple(rows)
    pair = [jnp.stack([jnp.float32(r[name]) for name in names], 1) for r in (again, rows)]
    jsd = jaxsbi.diagnostics.marginal_jsd(key_jsd, *pair).jsd
    return {
        "reweighted_efficiency": float(weighted.efficiency),
        "reweighted_jsd": dict(zip(names, np.round(jsd, 5).tolist(), strict=True)),
    }


def draws_of(key: Key, posterior: Posterior, event: problem.Event, x: Observation) -> Theta:
    """Return draws of the network, and as many of the weighted ones."""
    key_draws, key_pick = jax.random.split(key)
    weighted, _ = weigh(key_draws, posterior, event, x)
    return {f"network_{name}": np.asarray(a[:20_000]) for name, a in weighted.draws.items()} | {
        f"weighted_{name}": np.asarray(a) for name, a in weighted.resample(key_pick, 20_000).items()
    }


def exact_draws(key: Key, event: problem.Event, x: Observation) -> dict[str, np.ndarray]:
    """Return the reference posterior, its evidence and how long it took."""
    start = time.perf_counter()
    draws, info = reference.posterior(key, event, x, 20_000)
    report = {
        "log_evidence": info.log_evidence,
        "log_evidence_error": info.log_evidence_error,
        "r_hat": np.max(info.r_hat),
        "seconds": time.perf_counter() - start,
    }
    return dict(draws) | {f"info_{name}": np.asarray(value) for name, value in report.items()}


def calibrated(
    key: Key, posterior: Posterior, event: problem.Event, num_datasets: int = 1000
) -> dict[str, Any]:
    """Return p-values and ranks of simulation-based calibration, TARP and coverage."""
    report = jaxsbi.diagnostics.calibration(
        key, posterior, problem.prior(), event.simulate, num_datasets=num_datasets
    )
    return {
        name: {
            "p_values": ranks.p_value,
            "corrected": np.min(ranks.corrected),
            "ranks": ranks.ranks,
            "band": ranks.band,
        }
        for name, ranks in report.tests.items()
    }


def main(folder: Path) -> None:
    """Do every step that was not done, and draw the figures."""
    event, x, fitted = dingo.trained(folder)
    posterior = fitted.posterior
    keys = jax.random.split(jax.random.key(1), 7)
    exact = kept(folder / "exact.npz", lambda: exact_draws(keys[0], event, x))
    theta = {name: exact[name] for name in problem.prior().names}
    found: dict[str, Any] = {"training": training(fitted)}
    found["event"] = kept(
        folder / "event.json", lambda: on_event(keys[1], posterior, event, x, theta)
    )
    found["exact"] = {
        name.removeprefix("info_"): float(exact[name]) for name in exact if name.startswith("info")
    }
    arrays = kept(folder / "draws.npz", lambda: draws_of(keys[2], posterior, event, x))
    found["likelihood"] = kept(folder / "likelihood.json", lambda: likelihoods(event, x, theta))
    found["calibration"] = kept(
        folder / "calibration.json", lambda: _plain(calibrated(keys[3], posterior, event))
    )
    found["injections"] = kept(
        folder / "injections.json", lambda: injections(keys[4], posterior, event)
    )
    failed = kept(folder / "failures.json", lambda: _plain(failures(keys[5], posterior, event)))
    found["failures"] = failed["numbers"]
    figures.draw(folder, theta, arrays, found, failed["draws"])
    found["nested"] = kept(  # the slowest comes last
        folder / "nested.json", lambda: reference.evidence(keys[6], event, x)
    )
    for report in found["calibration"].values():
        del report["ranks"]
    out = Path("benchmarks/results/gw150914.json")
    write(out, found)


def training(fitted: jaxsbi.base.Fitted) -> dict[str, float]:
    """Return how long a training took, and on how many simulations."""
    history = fitted.history
    return {
        "simulations": history.num_simulations[0],
        "compile_seconds": history.compile_seconds,
        "run_seconds": history.run_seconds,
        "validation_loss": float(history.validation_loss[-1]),
    }


def _plain(tree: Any) -> Any:
    """Return arrays as rounded lists, for JSON."""
    return jax.tree.map(lambda a: np.round(np.asarray(a, float), 6).tolist(), tree)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "gw150914"))
