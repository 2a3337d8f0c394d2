"""Paths from noise to data, and the one rotation that all of them are.

A path mixes a latent point z with noise e ~ N(0, I): `z_t = alpha(t) z + sigma(t) e`. Divided by
`rho = sqrt(alpha² + sigma²)` this is a rotation by the angle `phi = atan2(sigma, alpha)`:

    u = cos(phi) z + sin(phi) e,        F = E[sin(phi) z - cos(phi) e | u],

from phi = pi/2 (noise) to phi = 0 (data). A field learns F: both its input and its target have
unit variance at all noise levels where z ~ N(0, I), as in the preconditioning of Karras et al.
(2022, arXiv:2206.00364) with unit data, and as in Lu & Song (2024, arXiv:2410.11081). What any
other parametrisation predicts follows from it:

    z ≈ cos(phi) u + sin(phi) F,    e ≈ sin(phi) u - cos(phi) F,    du/dphi = -F,

so F = 0 means: the target is N(0, I), the prior. Paths differ in which noise levels they train
at, how they weigh them, and where they stop; never in what they can express.
"""

from __future__ import annotations

from typing import Protocol

import jax
import jax.numpy as jnp

from jaxsbi.base import Array, configuration

FLOOR = 1e-7
"""The smallest alpha or sigma in a noise level. Solvers evaluate fields at pure noise and at pure
data: a floor of 1e-4 is seen as an error of first order in their steps."""


class Path(Protocol):
    """A schedule of noise: how a point is mixed, and which times are trained at."""

    def scales(self, t: Array) -> tuple[Array, Array]:
        """Return alpha and sigma at a time."""
        ...

    def training_time(self, quantile: Array) -> Array:
        """Return the time below (or above) which this share of the training times lies."""
        ...

    def weight(self, t: Array) -> Array:
        """Return the weight of the squared error of F at a time."""
        ...

    @property
    def noisiest(self) -> float:
        """The time at which sampling begins."""
        ...


@configuration
class FlowMatching:
    """The straight path `z_t = t z + (1 - t) e`, from noise (t = 0) to data (t = 1).

    The loss is that of conditional flow matching, `|v - (z - e)|²` (Lipman et al. 2022,
    arXiv:2210.02747). Training times are `t = sigmoid(scale * logit(q) - centre)` with q uniform:
    uniform times for (0, 1), and more of them close to the data where `centre` is negative, which
    narrow posteriors need (Wildberger et al. 2023, arXiv:2305.17161, use a power law).

    Attributes:
        centre: Median of log(sigma / alpha) over the training times.
        scale: Its spread, in units of the logistic distribution.
    """

    centre: float = -1.5
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Check the configuration.

        Raises:
            ValueError: If the spread is not positive.
        """
        _positive("FlowMatching", scale=self.scale)

    def scales(self, t: Array) -> tuple[Array, Array]:
        """Return alpha = t and sigma = 1 - t."""
        return t, 1.0 - t

    def training_time(self, quantile: Array) -> Array:
        """Return the quantile of the training times."""
        return jax.nn.sigmoid(self.scale * jax.scipy.special.logit(quantile) - self.centre)

    def weight(self, t: Array) -> Array:
        """Return 1 / rho², which makes the squared error of F that of the velocity."""
        return 1.0 / (t**2 + (1.0 - t) ** 2)

    @property
    def noisiest(self) -> float:
        """Pure noise, at t = 0."""
        return 0.0


@configuration
class VariancePreserving:
    """The variance-preserving diffusion with a linear rate (Song et al. 2020, arXiv:2011.13456).

    `alpha = exp(-B / 2)` and `sigma² = 1 - alpha²` with `B = t beta_min + t² (beta_max -
    beta_min) / 2`, from data (t = 0) to noise (t = 1). Trained at uniform times to predict the
    noise, as there.

    Attributes:
        beta_min: Rate at the data.
        beta_max: Rate at the noise.
        smallest: The smallest training time.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    smallest: float = 1e-5

    def __post_init__(self) -> None:
        """Check the configuration.

        Raises:
            ValueError: If a number is not positive, or the rates are not in order.
        """
        _positive("VariancePreserving", beta_min=self.beta_min, smallest=self.smallest)
        _ordered("VariancePreserving", "beta_min", self.beta_min, "beta_max", self.beta_max)
        _ordered("VariancePreserving", "smallest", self.smallest, "1", 1.0)

    def scales(self, t: Array) -> tuple[Array, Array]:
        """Return alpha and sigma; small sigmas keep their digits."""
        integral = t * self.beta_min + 0.5 * t**2 * (self.beta_max - self.beta_min)
        return jnp.exp(-0.5 * integral), jnp.sqrt(-jnp.expm1(-integral))

    def training_time(self, quantile: Array) -> Array:
        """Return the quantile of times uniform between the smallest and 1."""
        return self.smallest + (1.0 - self.smallest) * quantile

    def weight(self, t: Array) -> Array:
        """Return cos²(phi), which makes the squared error of F that of the predicted noise."""
        alpha, sigma = self.scales(t)
        return alpha**2 / (alpha**2 + sigma**2)

    @property
    def noisiest(self) -> float:
        """The end of the diffusion."""
        return 1.0


@configuration
class VarianceExploding:
    """The variance-exploding diffusion with geometric noise (arXiv:2011.13456).

    `alpha = 1` and `sigma = sigma_min (sigma_max / sigma_min)^t`, from data (t = 0) to noise
    (t = 1); trained at uniform times (uniform log sigma) to predict the noise.

    Attributes:
        sigma_min: Smallest noise, in units of the prior's width.
        sigma_max: Largest noise.
    """

    sigma_min: float = 2e-3
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        """Check the configuration.

        Raises:
            ValueError: If a number is not positive, or they are not in order.
        """
        _positive("VarianceExploding", sigma_min=self.sigma_min)
        _ordered("VarianceExploding", "sigma_min", self.sigma_min, "sigma_max", self.sigma_max)

    def scales(self, t: Array) -> tuple[Array, Array]:
        """Return alpha = 1 and sigma."""
        return jnp.ones_like(t), self.sigma_min * (self.sigma_max / self.sigma_min) ** t

    def training_time(self, quantile: Array) -> Array:
        """Return the quantile of uniform times."""
        return quantile

    def weight(self, t: Array) -> Array:
        """Return cos²(phi), which makes the squared error of F that of the predicted noise."""
        return 1.0 / (1.0 + self.scales(t)[1] ** 2)

    @property
    def noisiest(self) -> float:
        """The largest noise."""
        return 1.0


@configuration
class EDM:
    """The design of Karras et al. (2022, arXiv:2206.00364) for data of unit variance.

    `alpha = 1`, `sigma = t`, from data (t = 0) to noise. The rotation above is exactly their
    preconditioning: c_skip = 1 / (1 + sigma²), c_out = sigma / sqrt(1 + sigma²), c_in = 1 /
    sqrt(1 + sigma²), c_noise = log sigma; their loss weight 1 / c_out² makes all weights of F one.
    Training noise is log-normal.

    Attributes:
        mean: Mean of log sigma over the training.
        deviation: Its standard deviation.
        sigma_max: Noise at which sampling begins, in units of the prior's width.
    """

    mean: float = -1.5
    deviation: float = 1.8
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        """Check the configuration.

        Raises:
            ValueError: If a spread or a noise is not positive.
        """
        _positive("EDM", deviation=self.deviation, sigma_max=self.sigma_max)

    def scales(self, t: Array) -> tuple[Array, Array]:
        """Return alpha = 1 and sigma = t."""
        return jnp.ones_like(t), t

    def training_time(self, quantile: Array) -> Array:
        """Return the quantile of the log-normal noise."""
        return jnp.exp(self.mean + self.deviation * jax.scipy.special.ndtri(quantile))

    def weight(self, t: Array) -> Array:
        """Return one."""
        return jnp.ones_like(t)

    @property
    def noisiest(self) -> float:
        """The largest noise."""
        return self.sigma_max


def log_ratio(alpha: Array, sigma: Array) -> Array:
    """Return log(sigma / alpha), finite for pure noise and pure data: what a field is told."""
    return jnp.log(jnp.maximum(sigma, FLOOR)) - jnp.log(jnp.maximum(alpha, FLOOR))


def widest_angle(path: Path) -> Array:
    """Return the angle at which sampling along a path begins."""
    alpha, sigma = path.scales(jnp.asarray(path.noisiest, float))
    return jnp.arctan2(sigma, alpha)


def velocity(path: Path, t: Array, z: Array, F: Array) -> Array:
    """Return dz/dt of the path's probability flow at `z`, shape `(d,)`.

    Args:
        path: The path.
        t: A time, a scalar.
        z: A point `z_t`, shape `(d,)`.
        F: The field's value at `u = z / rho`, shape `(d,)`.
    """
    (alpha, sigma), (dalpha, dsigma) = jax.jvp(path.scales, (t,), (jnp.ones_like(t),))
    square = alpha**2 + sigma**2
    along, across = alpha * dalpha + sigma * dsigma, dalpha * sigma - dsigma * alpha
    return (along * z + across * jnp.sqrt(square) * F) / square


def score(path: Path, t: Array, z: Array, F: Array) -> Array:
    """Return the gradient of log p(z_t), shape `(d,)`; the arguments are those of `velocity`."""
    alpha, sigma = path.scales(t)
    square = alpha**2 + sigma**2
    return -(z - alpha / sigma * jnp.sqrt(square) * F) / square


def denoised(path: Path, t: Array, z: Array, F: Array) -> Array:
    """Return E[z | z_t], shape `(d,)`; the arguments are those of `velocity`."""
    alpha, sigma = path.scales(t)
    square = alpha**2 + sigma**2
    return (alpha * z + sigma * jnp.sqrt(square) * F) / square


def _positive(name: str, **values: float) -> None:
    for option, value in values.items():
        if not value > 0.0:
            raise ValueError(f"{name}: expected {option} > 0, got {value}.")


def _ordered(name: str, low: str, small: float, high: str, large: float) -> None:
    if not small < large:
        raise ValueError(f"{name}: expected {low} < {high}, got {small} and {large}.")
