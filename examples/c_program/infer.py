"""The posterior of a program written in C, which crashes for some parameters.

Run it in this folder: `python infer.py`. Interrupt it and start it again: what was simulated is in
the folder `draws`, and is not simulated twice.
"""

import subprocess

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

import jaxsbi

PRIOR = jaxsbi.Prior(mu=dist.Normal(0.0, 1.0))


def main() -> None:
    """Compile, simulate, fit, sample."""
    subprocess.run(["cc", "-O2", "-o", "sim", "sim.c", "-lm"], check=True)
    program = jaxsbi.command(["./sim", "--seed", "{seed}", "--mu", "{mu}", "-n", "4"])
    k1, k2, k3 = jax.random.split(jax.random.key(0), 3)
    store = jaxsbi.Store.create("draws", k1, PRIOR, chunk=100)
    simulations, record = jaxsbi.simulate_external(
        k1, PRIOR, program, 2_000, timeout=10.0, store=store
    )
    print(record.counts)  # a crash is recorded for its draw, and the others go on
    posterior = jaxsbi.fit(k2, jaxsbi.npe(), PRIOR, simulations).posterior
    x = jnp.array([0.9, 1.3, 0.4, 1.4])
    draws = posterior.sample(k3, x, 10_000)["mu"]
    # Exact, but for the cut at -1, which is far away: mean 0.8, standard deviation 0.447.
    print(f"mu = {draws.mean():.3f} ± {draws.std():.3f}; exact 0.800 ± 0.447")


if __name__ == "__main__":  # the worker processes import this file
    main()
