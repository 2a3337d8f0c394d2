"""NumPyro's NUTS kernel in many vectorised chains, started from resampled prior draws."""

from __future__ import annotations

from jaxsbi.base import Array, Key, configuration
from jaxsbi.samplers import hamiltonian
from jaxsbi.samplers.chains import LogDensity
from jaxsbi.samplers.convergence import ChainInfo


@configuration
class NUTS:
    """The No-U-Turn sampler (Hoffman & Gelman 2014, arXiv:1111.4246), as NumPyro implements it.

    Attributes:
        chains: Chains run side by side.
        warmup: Steps of each chain that adapt step size and masses and are not kept.
        max_tree_depth: A step takes at most `2**max_tree_depth - 1` gradients.
        target_acceptance: Acceptance probability the step size is adapted to.
        candidates: Latent prior draws from which the chains' starts are resampled.
        dense_mass: Adapt a full mass matrix instead of a diagonal one.
    """

    chains: int = 100
    warmup: int = 100
    max_tree_depth: int = 3
    target_acceptance: float = 0.8
    candidates: int = 4096
    dense_mass: bool = False

    def __post_init__(self) -> None:
        """Check the configuration.

        Raises:
            ValueError: If there are fewer than 2 chains, or the warm-up is too short to adapt.
        """
        hamiltonian.check_chains("nuts", self.chains, self.warmup)

    def __call__(
        self, key: Key, log_density: LogDensity, dim: int, n: int
    ) -> tuple[Array, ChainInfo]:
        """Draw `n` points from a density on R^dim.

        Args:
            key: A typed key.
            log_density: An unnormalised log-density on the latent space, in which the prior is
                close to N(0, I).
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
            algorithm="NUTS",
            chains=self.chains,
            warmup=self.warmup,
            candidates=self.candidates,
            dense_mass=self.dense_mass,
            target_accept_prob=self.target_acceptance,
            max_tree_depth=self.max_tree_depth,
        )


def nuts(
    *,
    chains: int = 100,
    warmup: int = 100,
    max_tree_depth: int = 3,
    target_acceptance: float = 0.8,
    dense_mass: bool = False,
) -> NUTS:
    """Return the configuration of NumPyro's NUTS kernel.

    Args:
        chains: Chains run side by side.
        warmup: Steps per chain that are not kept.
        max_tree_depth: A step takes at most `2**max_tree_depth - 1` gradients.
        target_acceptance: Acceptance probability the step size is adapted to.
        dense_mass: Adapt a full mass matrix, for strongly correlated posteriors.

    Raises:
        ValueError: If there are fewer than 2 chains, or the warm-up is too short to adapt.
    """
    return NUTS(
        chains=chains,
        warmup=warmup,
        max_tree_depth=max_tree_depth,
        target_acceptance=target_acceptance,
        dense_mass=dense_mass,
    )
