"""Every field × its invariants; and the solvers with the exact fields of known targets."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxsbi import fields

CONTEXT = 3
DRAWS = 4_000
REGISTRY = {"ResidualField": fields.ResidualField(hidden=8, blocks=2)}
PATHS = {
    "FlowMatching": fields.FlowMatching(),
    "VariancePreserving": fields.VariancePreserving(),
    "VarianceExploding": fields.VarianceExploding(),
    "EDM": fields.EDM(),
}
SOLVERS = {
    "fixed": fields.ode(steps=40),
    "adaptive": fields.ode(solver="tsit5", tolerance=1e-5),
    "sde": fields.sde(steps=400),
}
NO_FIELDS = {"Field", "FieldInfo", "JointTransformer", "ODE", "Path", "SDE", "ode", "sde"}
FUNCTIONS = {
    "compose",
    "denoised",
    "log_ratio",
    "precision_of",
    "score",
    "velocity",
    "widest_angle",
}
HALF_TURN = np.pi / 2

registry = pytest.mark.parametrize("name", REGISTRY)
paths = pytest.mark.parametrize("path", PATHS)
solvers = pytest.mark.parametrize("solver", SOLVERS)


def a_context():
    return jnp.asarray([0.5, -1.0, 0.3])


def params_of(name, dim, scale):
    """Return the initial parameters plus N(0, scale²)."""
    noise, u = jnp.zeros(()), jnp.zeros(dim)
    params = jax.jit(REGISTRY[name].init)(jax.random.key(0), noise, u, a_context())
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noisy = [a + scale * jax.random.normal(k, a.shape) for a, k in zip(leaves, keys, strict=True)]
    return treedef.unflatten(noisy)


def bound(name, params):
    return lambda noise, u: REGISTRY[name].apply(params, noise, u, a_context())


class Mixture:
    """A mixture of normals, its exact field, and its density."""

    def __init__(self, weights, means, covariances):
        self.weights, self.means = np.asarray(weights), np.asarray(means, float)
        self.covariances = np.asarray(covariances, float)
        self.dim = self.means.shape[1]

    def rotation(self, noise, u):
        """E[sin z - cos e | u]: each component's by regression, weighted by responsibility."""
        sin, cos = jax.nn.sigmoid(2 * noise) ** 0.5, jax.nn.sigmoid(-2 * noise) ** 0.5

        def component(weight, mean, covariance):
            noisy = cos**2 * covariance + sin**2 * jnp.eye(self.dim)
            whitened = jnp.linalg.solve(noisy, u - cos * mean)
            F = sin * mean + sin * cos * (covariance - jnp.eye(self.dim)) @ whitened
            log_det = jnp.linalg.slogdet(noisy)[1]
            return F, jnp.log(weight) - 0.5 * log_det - 0.5 * whitened @ (u - cos * mean)

        parts = [jnp.asarray(a, u.dtype) for a in (self.weights, self.means, self.covariances)]
        F, log_weight = jax.vmap(component)(*parts)
        return jax.nn.softmax(log_weight) @ F

    def log_prob(self, z):
        parts = zip(self.weights, self.means, self.covariances, strict=True)
        each = [np.log(w) + scipy.stats.multivariate_normal(m, c).logpdf(z) for w, m, c in parts]
        return scipy.special.logsumexp(each, axis=0)


GAUSSIAN = Mixture([1.0], [[0.7, -0.4]], [[[0.09, 0.05], [0.05, 0.04]]])
THREE = Mixture(
    [0.35, 0.35, 0.3],
    [[4.0, 4.0], [4.0, -4.0], [-4.0, 0.0]],
    [0.4 * np.eye(2), 0.4 * np.eye(2), 0.6 * np.eye(2)],
)
# Atoms, as good as: so narrow that only their masses can be told.
ATOMS = Mixture(np.ones(3) / 3, [[-7.0], [3.0], [7.0]], [[[1e-4]]] * 3)


def test_everything_public_is_registered():
    public = set(fields.__all__) - NO_FIELDS - FUNCTIONS
    assert public == set(REGISTRY) | set(PATHS)


@registry
def test_untrained_is_the_prior(name):
    """Draws are the noise itself, and the density is the standard normal's."""
    dim = 3
    rotation = bound(name, params_of(name, dim, 0.0))
    solver = fields.ode(solver="euler", steps=2, density_steps=2)
    widest = jnp.asarray(HALF_TURN)

    @jax.jit
    def draws_and_density(key):
        z, _ = solver(key, rotation, dim, 5, widest)
        return z, jax.vmap(lambda z: solver.log_prob(rotation, z, widest))(3.0 * z)

    z, value = draws_and_density(jax.random.key(2))
    np.testing.assert_array_equal(z, jax.random.normal(jax.random.key(2), (5, dim)))
    np.testing.assert_allclose(value, scipy.stats.norm.logpdf(3.0 * z).sum(1), rtol=1e-5)


@registry
def test_values_and_gradients_are_finite(name):
    """From pure noise to pure data, in the far tails, at ordinary and at large parameters."""
    u = jnp.linspace(-30.0, 30.0, 9)[:, None] * jnp.asarray([[1.0, -0.5]])

    @jax.jit
    @jax.value_and_grad
    def total(inputs):
        params, angle, u = inputs
        noise = fields.log_ratio(jnp.cos(angle), jnp.sin(angle))
        each = jax.vmap(bound(name, params), (None, 0))
        return jnp.sum(jax.vmap(each, (0, None))(noise, u))

    angle = jnp.asarray([0.0, 1e-6, 1e-2, 0.8, HALF_TURN - 1e-4, HALF_TURN])
    for scale in (0.0, 0.5, 3.0):
        found = total((params_of(name, 2, scale), angle, u))
        assert all(np.all(np.isfinite(a)) for a in jax.tree.leaves(found))


@registry
def test_configurations_are_hashable_equal_and_printable(name):
    field = REGISTRY[name]
    assert isinstance(field, nn.Module)
    assert (field.clone(), hash(field.clone())) == (field, hash(field))
    assert "hidden = 8" in repr(field)


@paths
def test_a_path_is_finite_at_both_ends(path):
    """At the extreme quantiles of the training times: scales, noise levels and weights."""
    path = PATHS[path]
    q = jnp.asarray([1e-6, 0.1, 0.5, 0.9, 1.0 - 1e-6])
    t = path.training_time(q)
    alpha, sigma = path.scales(t)
    found = (t, fields.log_ratio(alpha, sigma), path.weight(t), jax.vmap(jax.grad(path.weight))(t))
    assert all(np.all(np.isfinite(a)) for a in found)
    assert np.all(np.diff(found[1]) != 0) or np.all(np.diff(np.asarray(alpha**2)) != 0)
    assert 1.5 < float(fields.widest_angle(path)) < 1.5709


@paths
def test_a_path_gives_the_exact_velocity_and_score(path, x64):
    """Of a Gaussian target, from the closed form of its marginals N(alpha m, alpha² S + sigma²)."""
    path = PATHS[path]
    mean, covariance = map(jnp.asarray, (GAUSSIAN.means[0], GAUSSIAN.covariances[0]))
    z = jnp.asarray([0.3, 0.9])
    for share in (0.1, 0.5, 0.9):
        t = jnp.asarray(share)

        def marginal(t):
            alpha, sigma = path.scales(t)
            return alpha * mean, alpha**2 * covariance + sigma**2 * jnp.eye(2)

        (m, C), (dm, dC) = jax.jvp(marginal, (t,), (jnp.ones_like(t),))
        alpha, sigma = path.scales(t)
        u = z / jnp.sqrt(alpha**2 + sigma**2)
        F = GAUSSIAN.rotation(fields.log_ratio(alpha, sigma), u)
        gap = jnp.linalg.solve(C, z - m)
        np.testing.assert_allclose(fields.velocity(path, t, z, F), dm + 0.5 * dC @ gap, rtol=1e-9)
        np.testing.assert_allclose(fields.score(path, t, z, F), -gap, rtol=1e-9)
        expected = mean + alpha * covariance @ gap
        np.testing.assert_allclose(fields.denoised(path, t, z, F), expected, rtol=1e-9)


def test_the_edm_preconditioning_is_the_papers(x64):
    sigma, z, F = jnp.asarray(0.3), jnp.asarray([0.4, -1.0]), jnp.asarray([0.2, 0.5])
    skip, out = 1 / (1 + sigma**2), sigma / jnp.sqrt(1 + sigma**2)
    found = fields.denoised(fields.EDM(), sigma, z, F)
    np.testing.assert_allclose(found, skip * z + out * F, rtol=1e-12)


def draws_of(target, solver, n=DRAWS):
    widest = jnp.asarray(HALF_TURN)

    @jax.jit
    def draw(key):
        return SOLVERS[solver](key, target.rotation, target.dim, n, widest)

    z, info = draw(jax.random.key(5))
    assert not info.failed
    assert z.dtype == np.float32
    return np.asarray(z, np.float64), info


def test_draws_that_are_nan_are_warned_of():
    with pytest.warns(UserWarning, match=r"draws are NaN.*tolerance"):
        fields.FieldInfo(jnp.array(3), jnp.array([False, True])).warn()
    fields.FieldInfo(jnp.array(3), jnp.array(False)).warn()


@solvers
def test_draws_of_a_gaussian(solver):
    z, _ = draws_of(GAUSSIAN, solver)
    mean, covariance = GAUSSIAN.means[0], GAUSSIAN.covariances[0]
    deviation = np.sqrt(np.diag(covariance))
    assert np.all(np.abs(z.mean(0) - mean) < 4 * deviation / DRAWS**0.5)
    # Whitened, the sample covariance is 1 ± sqrt(2 / n); 1 % more for the solver.
    white = np.linalg.solve(np.linalg.cholesky(covariance), (z - mean).T)
    assert np.all(np.abs(np.cov(white) - np.eye(2)) < 0.01 + 4 * (2 / DRAWS) ** 0.5)
    for axis in range(2):
        assert scipy.stats.kstest(white[axis], "norm").pvalue > 1e-4


@solvers
def test_a_path_leads_from_noise_to_the_draws(solver):
    target, widest = THREE, jnp.asarray(HALF_TURN)
    arguments = (target.rotation, target.dim, 500, widest)
    way = SOLVERS[solver].path(jax.random.key(5), *arguments, 9)
    assert way.shape == (9, 500, target.dim)
    z, _ = SOLVERS[solver](jax.random.key(5), *arguments)
    # Adaptive solvers are interpolated between their steps.
    np.testing.assert_allclose(way[-1], z, atol=1e-4)
    # 500 draws of a standard normal: mean 0 ± 0.045, variance 1 ± 0.063.
    assert np.all(np.abs(way[0].mean(0)) < 0.2)
    assert np.all(np.abs(way[0].var(0) - 1) < 0.3)


@solvers
@pytest.mark.parametrize("target", [THREE, ATOMS], ids=["mixture", "atoms"])
def test_draws_keep_the_masses_of_the_modes(solver, target):
    z, _ = draws_of(target, solver)
    distance = np.linalg.norm(z[:, None] - target.means, axis=-1)
    share = np.bincount(distance.argmin(1), minlength=3) / DRAWS
    assert np.all(np.abs(share - target.weights) < 4 * (0.25 / DRAWS) ** 0.5)
    width = np.sqrt(np.trace(target.covariances, axis1=1, axis2=2))
    assert np.quantile(distance.min(1) / width[distance.argmin(1)], 0.999) < 3.5


@pytest.mark.parametrize(("width", "most"), [(0.3, 0.005), (0.01, 0.01), (0.001, 0.03)])
def test_the_default_solvers_resolve_narrow_posteriors(width, most, x64):
    """The ODE of a normal is linear: its error is the same factor at all points, without noise."""
    target = Mixture([1.0], [[0.4]], [[[width**2]]])
    widest = jnp.asarray(HALF_TURN)
    key = jax.random.key(3)
    z, _ = jax.jit(lambda key: fields.ode()(key, target.rotation, 1, 50, widest))(key)
    start = jax.random.normal(jax.random.clone(key), (50, 1))
    np.testing.assert_allclose(jnp.std(z) / jnp.std(start) / width, 1.0, atol=most)
    at = target.means[0, 0] + width * jnp.linspace(-2.0, 2.0, 5)[:, None]
    density = jax.jit(jax.vmap(lambda z: fields.ode().log_prob(target.rotation, z, widest)))
    np.testing.assert_allclose(density(at), target.log_prob(at), atol=0.01)
    n = 20_000
    z, _ = jax.jit(lambda key: fields.sde()(key, target.rotation, 1, n, widest))(jax.random.key(4))
    # It is of first order. A standard deviation of n draws scatters by 1 / sqrt(2 n).
    first_order = 0.05 if width > 0.005 else 0.18
    np.testing.assert_allclose(jnp.std(z) / width, 1.0, atol=first_order + 4 / (2 * n) ** 0.5)


def test_draws_and_densities_have_derivatives_forwards_and_backwards(x64):
    def log_prob(z):
        return fields.ode().log_prob(GAUSSIAN.rotation, z, jnp.asarray(HALF_TURN))

    hessian = jax.jit(jax.hessian(log_prob))(jnp.asarray([0.5, -0.3]))
    np.testing.assert_allclose(-hessian, np.linalg.inv(GAUSSIAN.covariances[0]), rtol=0.01)


@pytest.mark.parametrize(
    ("target", "solver"), [(GAUSSIAN, "adaptive"), (THREE, "fixed")], ids=["gaussian", "mixture"]
)
def test_the_density_is_the_closed_form_in_float64(target, solver, x64):
    tolerance = 1e-8 if solver == "adaptive" else None
    ode = fields.ode(solver="tsit5", density_steps=64, tolerance=tolerance)
    points = np.random.default_rng(6).normal(size=(20, 2))
    z = jnp.asarray(target.means[0] + points @ np.linalg.cholesky(target.covariances[0]).T)
    density = jax.jit(jax.vmap(lambda z: ode.log_prob(target.rotation, z, jnp.asarray(HALF_TURN))))
    np.testing.assert_allclose(density(z), target.log_prob(z), atol=1e-4)


def test_the_default_density_in_float32():
    z = jnp.asarray([[0.7, -0.4], [0.5, -0.5], [1.2, -0.1]])
    density = jax.jit(
        jax.vmap(lambda z: fields.ode().log_prob(GAUSSIAN.rotation, z, jnp.asarray(HALF_TURN)))
    )
    np.testing.assert_allclose(density(z), GAUSSIAN.log_prob(z), atol=2e-2)


def test_the_estimated_trace_is_exact_for_a_multiple_of_the_identity(x64):
    """Rademacher probes see a diagonal Jacobian exactly; and the same ones in each call."""
    target = Mixture([1.0], [np.zeros(20)], [0.25 * np.eye(20)])
    ode = fields.ODE(solver="tsit5", exact_dim=2, probes=1)
    z = jnp.linspace(-1.0, 1.0, 20)
    density = jax.jit(lambda z: ode.log_prob(target.rotation, z, jnp.asarray(HALF_TURN)))
    np.testing.assert_allclose(density(z), target.log_prob(z), atol=1e-4)


def test_independent_observations_compose_exactly_for_normals(x64):
    """Three normal posteriors under the prior N(0, I): the field of their product."""
    generator = np.random.default_rng(8)
    roots = 0.5 * generator.normal(size=(3, 2, 2))
    covariances = np.linalg.inv(np.eye(2) + np.linalg.inv(roots @ roots.swapaxes(1, 2)))
    means = generator.normal(size=(3, 2))
    singles = [Mixture([1.0], [m], [c]) for m, c in zip(means, covariances, strict=True)]
    precisions = np.linalg.inv(covariances)
    covariance = np.linalg.inv(precisions.sum(0) - 2 * np.eye(2))
    mean = covariance @ np.einsum("jab,jb->a", precisions, means)
    product = Mixture([1.0], [mean], [covariance])

    def rotations(noise, u):
        return jnp.stack([single.rotation(noise, u) for single in singles])

    composed = fields.compose(rotations, jnp.asarray(precisions))
    u = jnp.asarray([0.4, -0.9])
    for noise in (-4.0, -1.0, 0.0, 2.0):
        expected = product.rotation(jnp.asarray(noise), u)
        np.testing.assert_allclose(composed(jnp.asarray(noise), u), expected, rtol=1e-8)


def test_a_precision_is_never_below_the_priors(key):
    z = jax.random.normal(key, (4_000, 2)) * jnp.asarray([[0.5, 3.0]])
    found = fields.precision_of(z)
    # The inverse variance of 4,000 draws is known to sqrt(2 / 4000).
    np.testing.assert_allclose(found, np.diag([4.0, 1.0]), atol=4 * 4.0 * (2 / 4_000) ** 0.5)


def test_less_noise_keeps_the_marginals():
    def draw(key):
        solver = fields.SDE(steps=200, churn=0.3)
        return solver(key, GAUSSIAN.rotation, 2, DRAWS, jnp.asarray(HALF_TURN))[0]

    z = np.asarray(jax.jit(draw)(jax.random.key(7)))
    deviation = np.sqrt(np.diag(GAUSSIAN.covariances[0]))
    for axis in range(2):
        white = (z[:, axis] - GAUSSIAN.means[0, axis]) / deviation[axis]
        assert scipy.stats.kstest(white, "norm").pvalue > 1e-4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fields.ode(solver="rk4"), r"solver: expected one of .*'heun'.*got 'rk4'"),
        (lambda: fields.ode(steps=0), "expected steps, density_steps"),
        (lambda: fields.ode(tolerance=2.0), "tolerance: expected between 0 and 1, got 2.0"),
        (lambda: fields.ode(solver="euler", tolerance=0.1), "euler has no error estimate"),
        (lambda: fields.sde(churn=-1.0), "churn between 0 and 1"),
        (lambda: fields.EDM(deviation=0.0), "EDM: expected deviation > 0, got 0.0"),
        (lambda: fields.FlowMatching(scale=-1.0), "FlowMatching: expected scale > 0"),
        (lambda: fields.VariancePreserving(beta_max=0.01), "expected beta_min < beta_max"),
        (lambda: fields.VarianceExploding(sigma_max=1e-9), "expected sigma_min < sigma_max"),
    ],
)
def test_a_bad_option_says_so(make, message):
    with pytest.raises(ValueError, match=message):
        make()
