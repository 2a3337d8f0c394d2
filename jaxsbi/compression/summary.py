"""The summary that a training has learned: taken out, and gone on with."""

from __future__ import annotations

from typing import Any

import flax.linen as nn

from jaxsbi.base import (
    Array,
    Data,
    DataSpec,
    Key,
    Method,
    Posterior,
    Simulations,
    configuration,
    leaf,
)
from jaxsbi.compression.contrast import Views
from jaxsbi.methods.ensemble import Ensemble
from jaxsbi.methods.features import read_context
from jaxsbi.priors import Prior
from jaxsbi.splitting import seen, split

KEPT = ("mean", "scale", "summary", "numbers")
"""What a summary needs of the statistics that a method keeps (`methods/features.py`)."""


@configuration
class Summary:
    """A trained network, with what it knows of the data: `x -> (c,)`, for one data set.

    Attributes:
        network: The Flax module.
        params: Its parameters.
        statistics: The training data's mean and scale, and what the network keeps of them.
    """

    network: nn.Module
    params: Any = leaf()
    statistics: Any = leaf()

    def __call__(self, x: Data) -> Array:
        """Return the summary of one data set, shape `(c,)`."""
        return read_context(self.network, self.statistics, self.params, x)


def summary(posterior: Posterior, *, view: str | None = None) -> Summary:
    """Return the summary that a training has learned, by whatever objective.

    It serves `compression.frozen`, `compression.tuned`, every `summary=` of `jaxsbi.abc`, and any
    program: it is a pytree that maps one data set to a vector.

    Args:
        posterior: What `fit` returned for a road with a `summary=` (`npe`, `nre`, `fmpe`, `npse`),
            or for an objective of `jaxsbi.compression`.
        view: After `contrast`: the view to read alone.

    Raises:
        ValueError: If there is no summary network, several (an ensemble's), or no such view.
    """
    method = posterior.method
    if isinstance(method, Ensemble):
        raise ValueError(
            "summary: expected one training, got an ensemble, whose members have each learned a "
            "summary of their own. Take it from a fit without `ensemble`."
        )
    network = getattr(method, "summary", None)
    if not isinstance(network, nn.Module):
        raise ValueError(
            f"summary: {type(method).__name__} reads the data without a summary network. Train it "
            "with summary=…, or train one by itself: jaxsbi.compression.regression(network)."
        )
    params, stats = posterior.variables["params"]["summary"], posterior.variables["statistics"]
    stats = {name: stats[name] for name in KEPT if name in stats}
    whole = Summary(network=network, params=params, statistics=stats)
    return whole if view is None else _view(whole, view)


def _view(whole: Summary, view: str) -> Summary:
    parts = whole.network.parts if isinstance(whole.network, Views) else ()
    names = [name for name, _ in parts]
    if view not in names:
        raise ValueError(
            f"view: expected one of {names}, which compression.contrast has learned, got {view!r}."
        )
    # Flax names the modules of a tuple of pairs by their places in it.
    place = f"parts_{names.index(view)}_1"
    stats = {name: whole.statistics[name][view] for name in ("mean", "scale")}
    kept = {k: a[place] for k, a in whole.statistics.get("summary", {}).items() if place in a}
    return Summary(
        network=dict(parts)[view],
        params=whole.params.get(place, {}),
        statistics=stats | ({"summary": kept} if kept else {}),
    )


def tuned(
    key: Key, method: Method, prior: Prior, simulations: Simulations, summary: Summary
) -> Posterior:
    """Return an untrained posterior whose summary network is the trained one, to go on from.

    For fine-tuning: `fit(key, method, prior, simulations, initial=tuned(…))` trains the road and
    its summary together. (With a fixed summary: `compression.frozen`.)

    Args:
        key: A typed key, for what is new.
        method: A road with the same network as its `summary=`.
        prior: The prior of the simulations.
        simulations: What will be trained on.
        summary: The trained summary.

    Raises:
        ValueError: If the road's summary network is another, or there are too few simulations.
    """
    network = getattr(method, "summary", None)
    if network != summary.network:
        raise ValueError(
            f"method: expected a road with summary={summary.network}, which was trained, got "
            f"{network}."
        )
    rows, _ = split(simulations, 0.1, prior)
    by = prior.latent if getattr(method, "latent", False) else prior
    variables = method.init(key, by, seen(method, prior, rows))
    variables = {
        "params": {**variables["params"], "summary": summary.params},
        "statistics": {**variables["statistics"], **summary.statistics},
    }
    return Posterior(variables, prior, method, DataSpec.of(simulations.x, batched=True))
