"""ArviZ, of either major version, reads draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsbi

arviz = pytest.importorskip("arviz")
DRAWS = {
    "a": jax.random.normal(jax.random.key(0), (200,)),
    "b": jax.random.normal(jax.random.key(1), (200, 3)),
}


def test_draws_become_one_chain():
    data = jaxsbi.to_arviz(DRAWS, dims={"b": ["axis"]}, coords={"axis": ["x", "y", "z"]})
    posterior = data["posterior"]
    assert posterior["a"].shape == (1, 200)
    assert posterior["b"].dims == ("chain", "draw", "axis")
    np.testing.assert_array_equal(posterior["b"].sel(axis="y")[0], DRAWS["b"][:, 1])
    table = arviz.summary(data)
    assert len(table) == 4
    np.testing.assert_allclose(float(table.loc["a", "mean"]), float(DRAWS["a"].mean()), atol=0.01)


def test_every_group_is_there_and_data_have_names():
    x = {"image": jnp.zeros((200, 2, 2)), "counts": (jnp.zeros(200), jnp.ones(200))}
    one = jax.tree.map(lambda a: a[0], x)
    data = jaxsbi.to_arviz(
        DRAWS,
        posterior_predictive=x,
        log_likelihood=jnp.zeros((200, 5)),
        prior={"a": jnp.zeros(50)},
        prior_predictive=jnp.zeros((50, 7)),
        observed=one,
    )
    assert set(data["posterior_predictive"].data_vars) == {"image", "counts.0", "counts.1"}
    assert data["posterior_predictive"]["image"].shape == (1, 200, 2, 2)
    assert data["log_likelihood"]["x"].shape == (1, 200, 5)
    assert data["prior"]["a"].shape == (1, 50)
    assert data["prior_predictive"]["x"].shape == (1, 50, 7)
    assert data["observed_data"]["image"].shape == (2, 2)


@pytest.mark.parametrize(
    "draws", [{"a": jnp.zeros(5), "b": jnp.zeros((4, 2))}, {"a": jnp.zeros(())}]
)
def test_axes_that_do_not_agree(draws):
    with pytest.raises(ValueError, match=r"posterior: expected arrays with one leading axis"):
        jaxsbi.to_arviz(draws)


def test_without_arviz_it_says_how_to_install_it(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(ImportError, match="pip install arviz"):
        jaxsbi.to_arviz(DRAWS)
