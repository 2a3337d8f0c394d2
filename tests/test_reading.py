"""Runs of a campaign as arrays and HDF5 files: what is read, and what is wrong with them."""

import sys

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi

RNG = np.random.default_rng(0)
N = 30
THETA = {"hubble": RNG.uniform(60, 80, N), "omega": RNG.uniform(0.1, 0.5, N)}
SPECTRA = {"tt": RNG.normal(size=(N, 4)), "ee": RNG.normal(size=(N, 3))}

LISTS = r"got .*a list of data sets.*jaxsbi.networks.pad\("


@pytest.fixture
def campaign(tmp_path):
    """A file with every kind of column."""
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "runs.h5"
    with h5py.File(path, "w") as file:
        parameters = file.create_group("parameters")
        for name, values in THETA.items():
            parameters[name] = values
        parameters["hubble"].attrs["units"] = "km/s/Mpc"
        for name, values in SPECTRA.items():
            file[f"spectra/{name}"] = values
            file[f"spectra/{name}"].attrs["unit"] = b"uK^2"
        table = np.zeros(N, [("hubble", "f8"), ("omega", "f4")])
        for name, values in THETA.items():
            table[name] = values
        file["table"] = table
        file["matrix"] = np.stack(list(THETA.values()), 1)
        file["matrix"].attrs["columns"] = list(THETA)
        file["matrix"].attrs["units"] = ["km/s/Mpc", "1"]
        for kind, names in (("long", ["a", "b", "c"]), ("twice", ["a", "a"])):
            file[kind] = np.ones((N, 2))
            file[kind].attrs["columns"] = names
        file["empty"] = np.zeros((0, 4))
        file["counts"] = np.arange(N)
        file["strain"] = SPECTRA["tt"] + 1j
        file["short"] = np.zeros(N - 1)
        file["one"] = 3.0
        file["notes"] = ["text"] * N
        broken = SPECTRA["tt"].copy()
        broken[[3, 7], 1] = np.nan
        file["broken"] = broken
    return path


@pytest.mark.parametrize("place", ["parameters", "table", "matrix"])
def test_columns_have_names_and_units(campaign, place):
    columns = {"h": f"{place}/hubble", "om": f"{place}/omega"}
    spectra = {name: f"spectra/{name}" for name in SPECTRA}
    rows, said = jaxsbi.read_hdf5(campaign, columns, spectra, units={"tt": "uK^2"})
    assert (len(rows), rows.num_valid, said.invalid) == (N, N, 0)
    np.testing.assert_allclose(rows.theta["h"], THETA["hubble"], rtol=1e-6)
    np.testing.assert_allclose(rows.theta["om"], THETA["omega"], rtol=1e-6)
    for name, values in SPECTRA.items():
        np.testing.assert_allclose(rows.x[name], values, rtol=1e-6)
    expected = {"parameters": ("km/s/Mpc", ""), "table": ("", ""), "matrix": ("km/s/Mpc", "1")}
    assert said.units == {
        **dict(zip(("h", "om"), expected[place], strict=True)),
        **dict.fromkeys(SPECTRA, "uK^2"),
    }
    assert said.path == str(campaign)


def test_one_column_is_an_array_and_kinds_are_kept(campaign):
    rows, _ = jaxsbi.read_hdf5(campaign, ["matrix/hubble"], "counts", rows=slice(5, 15))
    assert list(rows.theta) == ["matrix/hubble"]
    np.testing.assert_array_equal(rows.x, np.arange(5, 15))
    assert jnp.issubdtype(rows.x.dtype, jnp.integer)
    rows, _ = jaxsbi.read_hdf5(campaign, {"h": "table/hubble"}, "strain")
    assert rows.x.dtype == jnp.complex64


def test_runs_that_are_not_finite_have_no_weight(campaign):
    with pytest.warns(UserWarning, match="2 of 30 runs are not finite"):
        rows, said = jaxsbi.read_hdf5(campaign, {"h": "table/hubble"}, "broken")
    np.testing.assert_array_equal(np.flatnonzero(rows.weight == 0), [3, 7])
    assert said.invalid == 2


def test_a_campaign_is_trained_on(campaign):
    rows, _ = jaxsbi.read_hdf5(campaign, {"h": "table/hubble"}, "spectra/tt")
    prior = jaxsbi.Prior(h=dist.Uniform(60.0, 80.0))
    method = jaxsbi.emulator(components=2, exact=True)
    import jax

    fitted = jaxsbi.fit(jax.random.key(0), method, prior, rows, max_epochs=2, progress=False)
    assert jaxsbi.emulate(fitted, {"h": 70.0}).shape == (4,)
    other = jaxsbi.Prior(hubble=dist.Uniform(60.0, 80.0))
    with pytest.raises(ValueError, match=r"expected the prior's parameters"):
        jaxsbi.fit(jax.random.key(0), method, other, rows, progress=False)


@pytest.mark.parametrize(
    ("theta", "x", "options", "message"),
    [
        (
            {"h": "parameters/hubbel"},
            "spectra/tt",
            {},
            r"expected the columns \['parameters/hubbel'\].*There are: .*parameters/hubble \[30\]",
        ),
        ({"h": "table/hubbel"}, "tt", {}, r"\['table/hubbel', 'tt'\].*table/hubble, table/omega"),
        ({"h": "matrix/h"}, "counts", {}, r"\['matrix/h'\].*matrix/hubble, matrix/omega"),
        ({"h": "parameters"}, "counts", {}, r"\['parameters'\]"),
        ({"h": "short"}, "counts", {}, r"of one length in theta and in x.*\(29,\).*\(30,\)"),
        ({"h": "one"}, "counts", {}, "one: expected one row per run, got a single number"),
        ({"h": "notes"}, "counts", {}, "notes: expected numbers, got object"),
        ([], "counts", {}, "theta: expected at least one column"),
        (
            {"q": "parameters/hubble"},
            {"q": "spectra/tt"},
            {"units": {"q": "uK^2"}},
            r"expected other names in x than in theta, got \['q'\] in both.*another name",
        ),
        ({"a": "long/a"}, "counts", {}, r"long/a: .*each of the matrix's 2 columns.*'b', 'c'"),
        ({"c": "long/c"}, "counts", {}, r"long/c: .*each of the matrix's 2 columns.*'b', 'c'"),
        ({"a": "twice/a"}, "counts", {}, r"no name twice, got \['a', 'a'\]"),
        (["counts"], "counts", {}, r"expected other names in x than in theta"),
        ({"h": "empty"}, {"x": "empty"}, {}, r"runs.h5: .*leading axis of runs.*\(0, 4\)"),
        ({"h": "table/hubble"}, "counts", {"rows": slice(40, 50)}, r"leading axis .*\(0,\)"),
        (
            {"h": "parameters/hubble"},
            "counts",
            {"units": {"h": "1/Gyr"}},
            "h: expected the unit '1/Gyr', got 'km/s/Mpc'",
        ),
        ({"h": "table/hubble"}, "counts", {"units": {"h": "km"}}, "unit 'km', got 'none'"),
        ({"h": "table/hubble"}, "counts", {"units": {"q": "km"}}, r"names among \['h', 'counts'\]"),
    ],
)
def test_what_is_wrong_with_a_file(campaign, theta, x, options, message):
    with pytest.raises(ValueError, match=message):
        jaxsbi.read_hdf5(campaign, theta, x, **options)


def test_what_is_no_file(tmp_path, monkeypatch):
    pytest.importorskip("h5py")
    with pytest.raises(FileNotFoundError, match="expected an HDF5 file, got none"):
        jaxsbi.read_hdf5(tmp_path / "none.h5", "a", "b")
    (tmp_path / "text.h5").write_text("a,b")
    with pytest.raises(ValueError, match="expected an HDF5 file, got another"):
        jaxsbi.read_hdf5(tmp_path / "text.h5", "a", "b")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r'pip install "jaxsbi\[hdf5\]"'):
        jaxsbi.read_hdf5(tmp_path / "text.h5", "a", "b")


def test_arrays_are_simulations():
    rows = jaxsbi.from_arrays(THETA, SPECTRA, weight=np.arange(N) > 2)
    assert rows.num_valid == N - 3
    assert rows.x["tt"].dtype == jnp.float32
    joined = rows.join(rows)
    assert len(joined) == 2 * N
    np.testing.assert_array_equal(joined[N:].x["ee"], rows.x["ee"])


@pytest.mark.parametrize(
    ("theta", "x", "weight", "message"),
    [
        (THETA, SPECTRA["tt"][:5], None, r"theta\['hubble'\] \(30,\).*x \(5, 4\)"),
        ({}, SPECTRA, None, "a leading axis of runs"),
        ({"a": 1.0}, np.ones(3), None, r"theta\['a'\] \(\), x \(3,\)"),
        (THETA, [np.ones((i % 3, 2)) for i in range(N)], None, LISTS),
        (THETA, {"bag": [np.ones((4, 2))] * N, "one": np.ones(N)}, None, LISTS),
        (THETA, np.array([np.ones(i % 3) for i in range(N)], object), None, LISTS),
        (THETA, np.array(["a"] * N), None, "got an array of <U1: expected numbers"),
        ({"a": np.ones((0, 2))}, np.ones((0, 3)), None, r"leading axis of runs.*\(0, 2\)"),
        (THETA, SPECTRA, np.ones(3), r"weight of shape \(30,\), got \(3,\)"),
        (
            THETA,
            SPECTRA | {"bb": np.full(N, np.nan)},
            None,
            r"NaN or infinity in each of 30.*never written: .*'x'.*'bb'",
        ),
    ],
)
def test_what_is_wrong_with_arrays(theta, x, weight, message):
    with pytest.raises(ValueError, match=message) as found:
        jaxsbi.from_arrays(theta, x, weight)
    assert len(str(found.value)) < 300


def test_what_single_precision_loses_is_told():
    theta = {"mu": np.linspace(0.0, 1.0, 50)}
    days = 2460000.5 + 0.01 * theta["mu"][:, None]
    with pytest.warns(UserWarning, match="1 of 1 numbers differ by less than float32 can tell"):
        jaxsbi.from_arrays(theta, days)
    jaxsbi.from_arrays(theta, np.full((50, 1), 7.7))  # constants have nothing to lose
    # Of sorted rows the first thousand are alike.
    line = np.linspace(100.0, 101.0, 1_000_000)
    jaxsbi.from_arrays({"mu": line}, line[:, None])


def test_integers_beyond_the_range_are_refused():
    with pytest.raises(ValueError, match="expected integers from -2147483648 to 2147483647"):
        jaxsbi.from_arrays({"mu": np.zeros(5)}, np.full((5, 1), 2**40))
