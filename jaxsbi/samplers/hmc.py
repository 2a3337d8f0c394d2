"""NumPyro's HMC kernel with a bounded number of leapfrog steps, in many vectorised chains."""

from __future__ import annotations

from jaxsbi.base import Array, Key, configuration
from jaxsbi.samplers import hamiltonian
from jaxsbi.samplers.chains import LogDensity
from jaxsbi.samplers.convergence import ChainInfo


@configuration
class HMC:
    """Hamiltonian Monte Carlo (Neal 2011, arXiv:1206.1901), as NumPyro implements it.

    All chains take the same random number of gradients in a transition, so that none waits for
    another: cheaper than NUTS where no part of the posterior needs long trajectories.

    Attributes:
        chains: Chains run side by side.
        warmup: Steps of each chain that adapt step size and masses and are not kept.
        leapfrog_steps: Gradients per transition, at most; half as many in the mean.
        target_acceptance: Acceptance probability the step size is adapted to.
        candidates: Latent prior draws from which the chains' starts are resampled.
        dense_mass: Adapt a full mass matrix instead of a diagonal one.
    """

    chains: int = 100
    warmup: int = 100
    leapfrog_steps: int = 8
    target_acceptance: float = 0.8
    candidates: int = 4096
    dense_mass: bool = False

    def __post_init__(self) -> None:
        """Check the configuration.

        Raises:
            ValueError: If there are fewer than 2 chains, no leapfrog step, or the warm-up is too
                short to adapt.
        """
        hamiltonian.check_chains("hmc", self.chains, self.warmup)
        if self.leapfrog_steps < 1:
            raise ValueError(f"hmc: expected leapfrog_steps >= 1, got {self.leapfrog_steps}.")

    def __call__(
        self, key: Key, log_density: LogDensity, dim: int, n: int
    ) -> tuple[Array, ChainInfo]:
        """Draw `n` points from a density on R^dim.

        Args:
            key: A typed key.
            log_density: An unnormalised, differentiable log-density on the latent space.
            dim: The number of dimensions.
            n: The number of draws; of `max(n, 100 * chains)` in all, a random choice is returned.

        Returns:
            Draws of shape `(n, dim)`, and the chains' report.
        """
        return hamiltonian.run(
            key,
            log_density,
            dim,
            n,
            algorithm="HMC",
            chains=self.chains,
            warmup=self.warmup,
            candidates=self.candidates,
            dense_mass=self.dense_mass,
            target_accept_prob=self.target_acceptance,
            leapfrog_steps=self.leapfrog_steps,
        )


def hmc(
    *,
    chains: int = 100,
    warmup: int = 100,
    leapfrog_steps: int = 8,
    target_acceptance: float = 0.8,
    dense_mass: bool = False,
) -> HMC:
    """Return the configuration of NumPyro's HMC kernel.

    Args:
        chains: Chains run side by side.
        warmup: Steps per chain that are not kept.
        leapfrog_steps: Gradients per transition, at most; half as many in the mean.
        target_acceptance: Acceptance probability the step size is adapted to.
        dense_mass: Adapt a full mass matrix, for strongly correlated posteriors.

    Raises:
        ValueError: If there are fewer than 2 chains, no leapfrog step, or the warm-up is too short.
    """
    return HMC(
        chains=chains,
        warmup=warmup,
        leapfrog_steps=leapfrog_steps,
        target_acceptance=target_acceptance,
        dense_mass=dense_mass,
    )
