"""The protocols everything else is built from. Read this file first.

A *simulator* maps one key and one parameter set to one data set. A *method* is a frozen
dataclass of configuration with four pure functions. A *posterior* is a method, its variables
and the prior it was trained with. Nothing here knows whether a road is likelihood-based or
simulation-based.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, dataclass_transform, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.dataspec import DataSpec as DataSpec
from jaxsbi.notice import is_concrete as is_concrete
from jaxsbi.notice import warn as warn
from jaxsbi.reach import Reach
from jaxsbi.support import warn_beyond
from jaxsbi.workarounds import register, register_dataclass

if TYPE_CHECKING:
    from jaxsbi.priors import Prior

Array = jax.Array
Key = jax.Array
Theta = dict[str, Array]
"""One parameter set: name → array."""
Data = Any
"""One data set: any pytree of arrays."""
Variables = dict[str, Any]
"""`{"params": trainable pytree, "statistics": data statistics}`."""
Simulator = Callable[[Key, Theta], Data]
"""A pure function of one key and one parameter set that returns one data set."""


def leaf(**kwargs: Any) -> Any:
    """Mark a dataclass field as a pytree leaf (an array, or a pytree of arrays)."""
    return dataclasses.field(metadata={"leaf": True}, **kwargs)


_C = TypeVar("_C", bound=type)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(leaf,))
def configuration(cls: _C) -> _C:
    """Make a class a frozen keyword-only dataclass that is also a pytree.

    Fields are static (hashable, compared by value) unless declared with `leaf()`. Methods,
    noise models and samplers are configurations: two that are equal share one compiled program.
    """
    cls = dataclasses.dataclass(frozen=True, kw_only=True)(cls)  # type: ignore[assignment]
    return register(cls, [f.name for f in dataclasses.fields(cls) if not f.metadata.get("leaf")])


@register_dataclass
@dataclasses.dataclass(frozen=True)
class Simulations:
    """Parameter sets and the data simulated from them, with a leading axis `n` on every leaf.

    Attributes:
        theta: Named parameters, each of shape `(n, *shape)`.
        x: A pytree of arrays, each of shape `(n, *shape)`.
        weight: Shape `(n,)`; 1 for a valid draw, 0 for padding and non-finite draws.
        score: The gradient of log p(x, latents | theta) by theta, like `theta`, where the
            simulator has one (`simulate_scored`).
        contrasts: For each draw K more of the prior, of shape `(n, K, *shape)`, that have:
        log_ratio: Their log p(x, latents | contrast) - log p(x, latents | theta), `(n, K)`.
    """

    theta: Theta
    x: Data
    weight: Array
    score: Theta | None = None
    contrasts: Theta | None = None
    log_ratio: Array | None = None

    def __len__(self) -> int:
        """Return the number of rows, valid or not."""
        return int(self.weight.shape[0])

    def __getitem__(self, index: Any) -> Simulations:
        """Return the rows selected by a slice or an index array."""
        return jax.tree.map(lambda leaf: leaf[index], self)

    def join(self, other: Simulations) -> Simulations:
        """Return these rows and those of `other`."""
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), self, other)

    @property
    def num_valid(self) -> int:
        """The number of rows with a positive weight."""
        return int(np.sum(np.asarray(self.weight) > 0))


@runtime_checkable
class Method(Protocol):
    """One road from simulations to a posterior: configuration and four pure functions.

    A method whose `init` and `loss` see parameters only through `prior.to_latent` says so by a
    class attribute `latent = True`. `fit` then maps them once, and not in every step: it passes
    `prior.latent` and parameters and contrasts `{"z": …}` (and scores by z, of the "likelihood"
    and of the "posterior"). A method whose `init` and `loss` see data only through a fixed function
    has it as `prepare(x)`, which `fit` applies once, too. A method that gains from longer training
    than most says by `steps` how many optimiser steps `fit` aims at, and by `epochs` in how many
    passes at most; one that learns exact numbers needs fewer `validation_rows` than `fit` holds
    out of few simulations. One whose simulations may lack an observation's noise, so that this
    need not be like them, says so by `noiseless = True`. One whose draws evaluate one network many
    times says so by `long_draws = True`: on a CPU they are compiled for speed. One whose members
    learn different things has `init_member(key, prior, simulations, member)`, which is called in
    the place of `init`.

    Three functions are called on the host where a method has them: `check(simulations)` before a
    training, `look_at(variables, prior, draws)` after draws were made, which may warn, and in
    sequential rounds `settled(prior, simulations)`, which returns the method with what it chooses
    by a look at the first round's.
    """

    def init(self, key: Key, prior: Prior, simulations: Simulations) -> Variables:
        """Return initial parameters, and statistics of the (training) simulations."""
        ...

    def loss(self, variables: Variables, prior: Prior, key: Key, batch: Simulations) -> Array:
        """Return one loss per row, shape `(n,)`; a row of weight 0 never affects another row."""
        ...

    def sample(
        self, variables: Variables, prior: Prior, key: Key, x: Data, n: int
    ) -> tuple[Theta, Any]:
        """Return `n` named draws for one observation, and a pytree of sampler information."""
        ...

    def log_prob(self, variables: Variables, prior: Prior, theta: Theta, x: Data) -> Array:
        """Return the log-density of one parameter set for one observation (a scalar)."""
        ...


FORWARDED = (
    "latent",
    "steps",
    "epochs",
    "validation_rows",
    "sampler",
    "target",
    "look_at",
    "noiseless",
    "long_draws",
)
"""What a method says of itself, and does not depend on the data: a wrapper of one says the same."""


@register_dataclass
@dataclasses.dataclass(frozen=True)
class Posterior:
    """What every road ends in: an amortized posterior for any observation of the same shape.

    Every method is pure and can be put under `jax.jit` and `jax.vmap`, over keys, observations
    and variables.

    Attributes:
        variables: Trained parameters and data statistics.
        prior: The prior of the training simulations; it defines the latent coordinates.
        method: The configuration of the road.
        data: The structure of one observation.
        reach: How far the simulations of training reach (of a stream or a store, the first of
            them): who samples for an observation beyond them is warned.
    """

    variables: Variables
    prior: Prior
    method: Method
    data: DataSpec = dataclasses.field(metadata={"static": True})
    reach: Reach | None = None

    def sample(self, key: Key, x: Data, n: int) -> Theta:
        """Draw `n` parameter sets for one observation.

        Args:
            key: A typed key, `jax.random.key(seed)`.
            x: One data set, of the structure and shapes the simulator returns.
            n: The number of draws (static).

        Returns:
            Named draws, each of shape `(n, *shape)`.

        Raises:
            TypeError: If the key is not a typed key, or `x` has another structure or dtype.
            ValueError: If `x` has another shape or is not finite, or `n < 1`.

        Warns:
            UserWarning: If a number of `x` lies far beyond all simulations of training.
        """
        return self.sample_with_info(key, x, n)[0]

    def sample_with_info(self, key: Key, x: Data, n: int) -> tuple[Theta, Any]:
        """Draw as `sample`, and return what the sampler reports (R-hat, ESS, divergences …)."""
        check_key(key)
        n, x = positive("n", n), self.conform(x)
        self.warn_beyond(x)
        # JAX takes compiler options at the outermost jit only: under a user's own there are none.
        program = draw_program(self.method) if is_concrete((self, key, x)) else _sample
        draws, info = program(self, key, x, n)
        warn = getattr(info, "warn", None)
        if warn is not None and is_concrete(info):
            warn()
        look = getattr(self.method, "look_at", None)
        if look is not None and is_concrete((self, draws)):
            look(self.variables, self.prior, draws)
        # A compiled program returns a dict sorted.
        return {name: draws[name] for name in self.prior.names}, info

    def log_prob(self, theta: Theta, x: Data) -> Array:
        """Return the log-density of one parameter set given one observation (a scalar).

        For roads that learn a likelihood or a ratio the density is not normalised over theta:
        it is `log p(x | theta) + log p(theta)` up to a constant that depends on `x` only.

        Raises:
            TypeError: If `theta` is no dict, or `x` has another structure.
            ValueError: If `theta` has a missing or an extra name, or one of them another shape.
            NotImplementedError: If the road has no density.
        """
        theta = self.prior.check(theta)
        # Weak types (Python's numbers) and strong ones would be compiled twice.
        theta = jax.tree.map(lambda a: jnp.asarray(a, jnp.result_type(a)), theta)
        return _log_prob(self, theta, self.conform(x))

    def conform(self, x: Data) -> Data:
        """Return one observation as arrays of the dtypes of training.

        Independent draws (`iid=True`) may be others in number than those of training.

        Raises:
            TypeError: If it has another structure or dtype.
            ValueError: If it has another shape, or is not finite.
        """
        iid = getattr(self.method, "iid", False)
        return (self.data.of_as_many(x) if iid else self.data).conform(x)

    def warn_beyond(self, x: Data, counts: Data = None) -> None:
        """Warn, outside of jit, of an observation far beyond the simulations of training.

        Args:
            x: As `conform` returns it; or several, along a leading axis.
            counts: Booleans like `x`: which of its numbers were observed; all by default.
        """
        if self.reach is not None and is_concrete((self.reach, x, counts)):
            self.reach.warn(x, counts)

    def with_prior(self, new: Prior) -> Posterior:
        """Return the posterior under another prior, without new training; warn of a wider one.

        Raises:
            NotImplementedError: For roads that learn the posterior itself (NPE, FMPE, NPSE):
                their draws can be re-weighted with `jaxsbi.importance`.
            ValueError: If the new prior's names or shapes differ.
        """
        replace = getattr(self.method, "with_prior", None)
        if replace is None:
            raise NotImplementedError(
                f"{type(self.method).__name__} has learned the posterior under its training prior "
                "and cannot change it. Re-weight its draws: jaxsbi.importance(key, posterior, "
                "log_likelihood, new_prior, x, n); or use nle, nre or emulator."
            )
        if (new.names, new.shapes) != (self.prior.names, self.prior.shapes):
            raise ValueError(
                f"with_prior: expected parameters {self.prior.shapes}, got {new.shapes}."
            )
        warn_beyond(self.prior, new)
        return dataclasses.replace(self, method=replace(new))


CPU_OPTIONS: dict[str, Any] = {"xla_backend_optimization_level": 1}
"""LLVM's costlier passes and (before JAX 0.11, which has no other) the newer code generator make
compilation longer by half: worth it in long trainings only, and where a small program runs long,
`LONG_OPTIONS`."""
LONG_OPTIONS = dict(CPU_OPTIONS)
ONCE_OPTIONS: dict[str, Any] = {"xla_backend_optimization_level": 0}
"""For what runs once, and for less time than it takes to compile."""
if jax.__version_info__ < (0, 11):
    CPU_OPTIONS["xla_cpu_use_fusion_emitters"] = False
    ONCE_OPTIONS["xla_cpu_use_fusion_emitters"] = False


def _draw(posterior: Posterior, key: Key, x: Data, n: int) -> tuple[Theta, Any]:
    return posterior.method.sample(posterior.variables, posterior.prior, key, x, n)


_sample = jax.jit(_draw, static_argnames="n")
_sample_cpu = jax.jit(_draw, static_argnames="n", compiler_options=CPU_OPTIONS)
_sample_cpu_long = jax.jit(_draw, static_argnames="n", compiler_options=LONG_OPTIONS)


def draw_program(method: Method) -> Any:
    """Return the compiled function by which a method's posterior draws, outside of any other."""
    if jax.default_backend() != "cpu":
        return _sample
    return _sample_cpu_long if getattr(method, "long_draws", False) else _sample_cpu


@jax.jit
def _log_prob(posterior: Posterior, theta: Theta, x: Data) -> Array:
    return posterior.method.log_prob(posterior.variables, posterior.prior, theta, x)


@dataclasses.dataclass(frozen=True)
class History:
    """What happened during `fit`.

    Attributes:
        train_loss: Mean loss of each epoch, shape `(epochs,)`, or `(members, epochs)`.
        validation_loss: Mean loss of the whole validation set after each epoch, same shape, of
            outliers cut to ten interquartile ranges (at least ten nats) above the median; NaN after
            a member has stopped.
        best_epoch: The epoch whose variables were kept (per member for an ensemble).
        stopped: Why training ended: "patience", "max_epochs" or "interrupted".
        compile_seconds: Wall-clock seconds spent tracing and compiling.
        run_seconds: Wall-clock seconds spent training.
        num_simulations: Simulations used, for training and for validation.
        num_invalid: Simulations left out because they were not finite.
    """

    train_loss: np.ndarray
    validation_loss: np.ndarray
    best_epoch: np.ndarray
    stopped: str
    compile_seconds: float
    run_seconds: float
    num_simulations: tuple[int, int]
    num_invalid: int

    @property
    def epochs(self) -> int:
        """The number of epochs run."""
        return int(self.train_loss.shape[-1])

    @property
    def best_loss(self) -> float:
        """The validation loss of the kept variables (mean over the members of an ensemble)."""
        best = np.nanmin(self.validation_loss, axis=-1) if self.epochs else np.array(math.nan)
        return float(np.mean(best))


@dataclasses.dataclass(frozen=True)
class Fitted:
    """What `fit` returns: the posterior and the history of its training."""

    posterior: Posterior
    history: History


def check_key(key: Any) -> None:
    """Raise a TypeError unless `key` is a typed PRNG key, or an array of them."""
    if not isinstance(key, jax.Array) or not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        got = f"{key.dtype}{list(key.shape)} array" if hasattr(key, "dtype") else repr(key)
        raise TypeError(
            f"key: expected a typed key from jax.random.key(seed), got {got}. "
            "Legacy uint32 keys (jax.random.PRNGKey) are not accepted; convert one with "
            "jax.random.wrap_key_data."
        )
    if key.shape:
        raise TypeError(
            f"key: expected one key, got an array of shape {key.shape}. Use jax.vmap over keys."
        )


def positive(name: str, value: Any) -> int:
    """Return a positive integer, or raise a ValueError."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < 1:
        raise ValueError(f"{name}: expected a positive integer, got {value!r}.")
    return int(value)


def varies(scale: Array, mean: Array) -> Array:
    """Return which standard deviations are more than the rounding of numbers about their mean."""
    return scale > 8 * jnp.finfo(scale.dtype).eps * jnp.abs(mean)
