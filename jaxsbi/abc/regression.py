"""Regression adjustment: kept draws are moved to where the observation would have put them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxsbi.abc.distances import Summary
from jaxsbi.abc.nearest import summarize
from jaxsbi.abc.rejection import RejectionInfo
from jaxsbi.abc.smc import SMCInfo
from jaxsbi.base import Array, Data, DataSpec, Theta, varies
from jaxsbi.methods.fixed import fixed
from jaxsbi.networks.flatten import flatten
from jaxsbi.priors import Prior

_FLOOR = 1e-4  # of the mean square, below which a residual is as good as none
_MOST = 3.0  # nats by which a width is changed
_FREE = 0.5  # share of the effective rows that slopes must leave free


def adjust(
    prior: Prior,
    draws: Theta,
    info: RejectionInfo | SMCInfo,
    x_observed: Data,
    *,
    local: bool = True,
    summary: Summary | None = None,
) -> tuple[Theta, Array]:
    """Correct kept draws for the distance of their simulations from the observation.

    The latent parameters z are regressed on the data (or their summary) s, and each draw becomes
    `z - slope @ (s - s_observed)` (Beaumont, Zhang & Balding 2002, Genetics 162, 2025). What is
    left is scaled to the width at the observation, as the logarithm of its square is regressed on
    s too (Blum & François 2010, Stat. Comput. 20, 63, arXiv:0809.4178). In latent space adjusted
    draws stay in the prior's support. The slopes are a ridge regression's, with the penalty that
    minimises the generalised cross-validation score: as many numbers as draws do no harm.

    Args:
        prior: The prior of the draws.
        draws: Kept draws, as `rejection` or `smc` returns them.
        info: Their report: distances and simulations, and weights from `smc`.
        x_observed: The observation they were kept for.
        local: Weigh the draws by an Epanechnikov kernel of their distance, `1 - (d / tolerance)²`
            (local-linear regression); otherwise all alike.
        summary: `summary(x)` to regress on, a vector; all numbers of `x` if not given.

    Returns:
        The adjusted draws, and their normalised weights, shape `(n,)`: kernel times `info.weights`.

    Raises:
        TypeError: If the observation has another structure or kind of number than the kept data.
        ValueError: If the observation has another shape, or is not finite.
    """
    # Another shape would be broadcast against the kept data.
    x_observed = DataSpec.of(info.x, batched=True).conform(x_observed)
    adjusted, weights = _adjust(prior, draws, info, x_observed, jnp.asarray(local), fixed(summary))
    return {name: adjusted[name] for name in prior.names}, weights


@jax.jit
def _adjust(
    prior: Prior,
    draws: Theta,
    info: Any,
    x_observed: Data,
    local: Array,
    summary: Summary | None,
) -> tuple[Theta, Array]:
    tolerance = jnp.where(info.distances[-1] > 0, info.distances[-1], 1.0)
    kernel = 1.0 - (info.distances / tolerance) ** 2
    # Discrete data can all lie at one distance: then none is nearer than another.
    kernel = jnp.where(local & (jnp.sum(kernel) > 0), kernel, 1.0)
    weight = kernel * info.weights if isinstance(info, SMCInfo) else kernel
    weight = weight / jnp.sum(weight)
    z = jax.vmap(prior.to_latent)(draws)
    rows = jax.vmap(lambda x: flatten(summarize(summary, x)))(info.x)
    offset = rows - flatten(summarize(summary, x_observed))[None]
    moved = z - offset @ ridge(rows, z, weight)
    centre = (weight @ moved)[None]
    left = moved - centre
    floor = _FLOOR * (weight @ left**2)[None] + jnp.finfo(left.dtype).tiny
    wider = 0.5 * offset @ ridge(rows, jnp.log(left**2 + floor), weight)
    moved = centre + left * jnp.exp(-jnp.clip(wider, -_MOST, _MOST))
    return jax.vmap(prior.from_latent)(moved), weight


def ridge(x: Array, z: Array, weight: Array) -> Array:
    """Return slopes `(p, d)` of a weighted ridge regression of `z` `(n, d)` on `x` `(n, p)`.

    Its penalty minimises the generalised cross-validation score (Golub, Heath & Wahba 1979), summed
    over the logarithms of the outputs, with the effective number of rows. The score says nothing
    where slopes pass through nearly all rows, which more numbers than rows always can.
    """
    mean = weight @ x
    scale = jnp.sqrt(weight @ (x - mean[None]) ** 2)
    moving = varies(scale, mean)
    scale = jnp.where(moving, scale, 1.0)
    features = jnp.where(moving[None], (x - mean[None]) / scale[None], 0.0)
    targets = z - (weight @ z)[None]
    root = jnp.sqrt(weight)[:, None]
    # Singular values, not those of the matrix of products, whose small ones float32 loses.
    left, size, right = jnp.linalg.svd(root * features, full_matrices=False)
    moment = left.T @ (root * targets)
    total = jnp.sum((root * targets) ** 2, axis=0)
    effective = 1.0 / jnp.sum(weight**2)

    def score(penalty: Array) -> Array:
        shrink = size**2 / (size**2 + penalty)
        left_over = total - jnp.sum((1.0 - (1.0 - shrink[:, None]) ** 2) * moment**2, axis=0)
        free = 1.0 - (jnp.sum(shrink) + 1.0) / effective
        found = jnp.log(left_over + 1e-10 * total + 1e-30) - 2.0 * jnp.log(jnp.maximum(free, _FREE))
        return jnp.where(free >= _FREE, jnp.sum(found), jnp.inf)

    penalties = jnp.logspace(3.0, -8.0, 45)  # the largest first: it is taken where none is right
    best = penalties[jnp.argmin(jax.lax.map(score, penalties))]
    slopes = right.T @ ((size / (size**2 + best))[:, None] * moment)
    return slopes / scale[:, None]
