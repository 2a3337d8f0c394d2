"""The files: whole or absent, and refused when they are not what was saved."""

import json
import os
import random
import shutil
import warnings
from pathlib import Path

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
import safetensors.numpy

import jaxsbi
from jaxsbi.saving import folder as files

MUTATIONS = 300
REFUSED = (ValueError, TypeError, FileNotFoundError)


@pytest.fixture
def run(runs, tmp_path):
    """Return the folder of a saved run, alone in its parent."""
    jaxsbi.save(tmp_path / "run", runs.small())
    return tmp_path / "run"


def document(run):
    return json.loads((run / files.JSON).read_text())


def rewrite(run, content):
    """Write a document with a valid checksum, as whoever forges one would."""
    (run / files.JSON).write_text(json.dumps(files.seal(content)))


def arrays(run):
    return next(run.glob("arrays-*.safetensors"))


def test_a_saved_run_is_readable_json_and_one_file_of_arrays(run):
    content = document(run)
    assert {path.name for path in run.iterdir()} == {files.JSON, content["arrays"]["file"]}
    assert content["version"] == list(files.VERSION)
    assert content["versions"]["jax"] == jax.__version__
    assert content["method"]["density"]["hidden"] == 4
    assert content["prior"]["distributions"]["a"]["parameters"]["loc"]["$values"] == [1.0]
    assert content["data"] == {"$spec": "float32", "shape": [3]}
    assert '"shape": [3]' in (run / files.JSON).read_text()
    kernel = safetensors.numpy.load_file(arrays(run))["variables.params.density.body_1.kernel"]
    assert kernel.shape == (4, 4)


def test_a_path_may_be_a_string_below_new_folders(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for path in ("run", "new/folders/run", "empty"):
        jaxsbi.save(path, runs.small())
        runs.same(jaxsbi.load(path), runs.small())


def test_another_run_takes_the_place_of_an_older_one(runs, run):
    (run / "notes.txt").write_text("kept")
    other = runs.made(runs.npe, jaxsbi.Prior(a=dist.Normal(0.0, 1.0), b=dist.Normal(np.ones(2))))
    for fitted in (other, other, runs.small()):
        jaxsbi.save(run, fitted)
        runs.same(jaxsbi.load(run), fitted)
        assert len(list(run.iterdir())) == 3
    assert (run / "notes.txt").read_text() == "kept"


@pytest.mark.parametrize("what", ["file", "folder", "other json", "damaged"])
def test_nothing_else_is_overwritten(runs, tmp_path, what):
    path = tmp_path / "run"
    if what == "file":
        path.write_text("mine")
    else:
        path.mkdir()
        name, text = ("thesis.tex", "mine") if what == "folder" else (files.JSON, '{"mine": 1}')
        (path / name).write_text("{" if what == "damaged" else text)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(FileExistsError, match=r"something else\. Choose another name, or delete"):
        jaxsbi.save(path, runs.small())
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("call", [1, 2, "rename"])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_interrupted_save_changes_nothing(runs, run, monkeypatch, older, call, error):
    other = runs.made(runs.npe, jaxsbi.Prior(a=dist.Normal(0.0, 1.0), b=dist.Normal(np.ones(2))))
    path = run if older else run.with_name("new")
    before = {p: p.read_bytes() for p in run.iterdir()}
    count = []

    def fail(*args):
        count.append(args)
        if call == "rename" or len(count) == call:
            raise error("interrupted")

    monkeypatch.setattr(*((Path, "replace") if call == "rename" else (os, "fsync")), fail)
    with pytest.raises(error, match="interrupted"):
        jaxsbi.save(path, other)
    monkeypatch.undo()
    assert list(run.parent.iterdir()) == [run]
    assert {p: p.read_bytes() for p in run.iterdir()} == before
    runs.same(jaxsbi.load(run), runs.small())


@pytest.mark.parametrize("name", [".", files.JSON, "arrays"])
def test_a_missing_file(run, name):
    path = arrays(run) if name == "arrays" else run / name
    (shutil.rmtree if path.is_dir() else os.unlink)(path)
    with pytest.raises(FileNotFoundError, match="expected a saved run, found no such file"):
        jaxsbi.load(run)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected JSON of a saved run"),
        ("[1, 2]", "another JSON file"),
        ('{"format": "other"}', "another JSON file"),
        ('{"format": NaN}', "NaN, which is no JSON"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested too deeply"),
        ("\ud800".encode("utf-16", "surrogatepass"), "expected JSON of a saved run"),
        ('{"format": "jaxsbi fitted", "version": 1e400}', "expected JSON of a saved run"),
        ("9" * 10_000, "expected JSON of a saved run"),
        ('{"format": "jaxsbi fitted"}', r"expected a version \[major, minor\], got None"),
        ('{"format": "jaxsbi fitted", "version": [3, 0]}', "got 3.0. Upgrade jaxsbi"),
        ('{"format": "jaxsbi fitted", "version": [1, 4]}', "got 1.4. Train again"),
        ('{"format": "jaxsbi fitted", "version": [2, 0]}', "damaged or changed"),
    ],
)
def test_another_json_file(run, text, message):
    (run / files.JSON).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        jaxsbi.load(run)


def test_too_large_a_file(run, monkeypatch):
    monkeypatch.setattr(files, "MAX_JSON_BYTES", 100)
    with pytest.raises(ValueError, match="expected at most 100 bytes"):
        jaxsbi.load(run)


@pytest.mark.parametrize(
    "name",
    ["../arrays-0123456789abcdef.safetensors", "/etc/passwd", "arrays.safetensors", ".", "", None],
)
def test_names_cannot_leave_the_folder(run, name):
    content = document(run)
    content["arrays"]["file"] = name
    rewrite(run, content)
    with pytest.raises(ValueError, match="expected the name of a file in this folder"):
        jaxsbi.load(run)


@pytest.mark.parametrize("name", [files.JSON, "arrays"])
def test_links_are_not_followed(run, name):
    path = arrays(run) if name == "arrays" else run / name
    path.rename(run.parent / "elsewhere")
    path.symlink_to(run.parent / "elsewhere")
    with pytest.raises(ValueError, match="got a link"):
        jaxsbi.load(run)


CHANGES = {
    "a type": (("method", "$type"), "os.system", r"method: expected a type of this version"),
    "no type": (("method", "$type"), ["NPE"], r"method: expected a type of this version"),
    "another type": (("method", "$type"), "samplers.SMC", r"method: expected the fields"),
    "no method": (("method",), {"$type": "samplers.SMC"}, r"method: expected a Method, got SMC"),
    "a field": (("method", "extra"), 1, r"method: expected the fields .* got also \['extra'\]"),
    "a kind": (("method", "density"), {"$eval": "1"}, r"expected a known kind .*'\$eval'"),
    "a float": (("method", "density"), {"$float": "1"}, r"expected 'nan', 'inf'"),
    "an activation": (("method", "density"), {"$activation": "eval"}, r"activation: expected one"),
    "an array": (
        ("variables", "x"),
        {"$array": "none", "dtype": "float32", "shape": []},
        r"variables.x: expected an array named 'none'",
    ),
    "a dtype": (
        ("variables", "x"),
        {"$values": [1], "dtype": "object", "shape": [1]},
        r"variables.x: expected a dtype among",
    ),
    "a shape": (
        ("variables", "x"),
        {"$values": [1], "dtype": "int8", "shape": [-1]},
        r"variables.x: expected a shape of whole numbers",
    ),
    "an overflow": (
        ("variables", "x"),
        {"$values": [300], "dtype": "uint8", "shape": [1]},
        r"uint8",
    ),
    "text": (
        ("variables", "x"),
        {"$values": ["1"], "dtype": "float32", "shape": [1]},
        r"variables.x: expected numbers",
    ),
    "no variables": (("variables",), 3, r"variables: expected a dict, got int"),
    "no history": (("history",), None, r"history: expected a History, got NoneType"),
    "no data": (("data",), 3, r"data: expected shapes and dtypes, got 3"),
    "no prior": (("prior",), None, r"prior: expected a Prior, got NoneType"),
    "a route": (("prior", "routes", "a"), 3, r"prior: expected a Route for each of \['a'\]"),
    "a map": (("prior", "routes", "a", "kind"), "other", r"other"),
    "a size": (("prior", "routes", "a", "shape"), [7], r"posterior.json"),
    "no distribution": (("prior", "distributions", "a"), 3, r"a Distribution for each of \['a'\]"),
    "a parameter": (
        ("prior", "distributions", "a", "parameters", "__class__"),
        3,
        r"expected the fields .*__class__",
    ),
    "a constraint": (
        ("prior", "distributions", "a"),
        {"$type": "constraints.Real", "__class__": {"$type": "constraints.Real"}},
        r"expected names of attributes",
    ),
    "a part": (("more",), 3, r"the file: expected the fields .*got also \['more'\]"),
    "deep": (("variables", "x"), None, r"nested too deeply|recursion"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_forged_content(run, name):
    (*path, last), value, message = CHANGES[name]
    content = document(run)
    node = content
    for key in path:
        node = node[key]
    if name == "deep":
        for _ in range(600):
            value = [value]
    node[last] = value
    rewrite(run, content)
    with pytest.raises(ValueError, match=message):
        jaxsbi.load(run)


@pytest.mark.parametrize("change", [{"dtype": "int32"}, {"shape": [4, 3]}])
def test_arrays_have_the_shapes_and_dtypes_of_the_json(run, change):
    content = document(run)
    content["variables"]["params"]["density"]["body_1"]["kernel"] |= change
    rewrite(run, content)
    with pytest.raises(ValueError, match=r"body_1.kernel: expected .*, got float32\[4, 4\]"):
        jaxsbi.load(run)


def test_bytes_that_are_no_whole_numbers(run):
    tensors = safetensors.numpy.load_file(arrays(run))
    name = "variables.params.density.body_1.kernel"
    forge(run, tensors | {name: np.zeros(7, np.uint8)})
    with pytest.raises(ValueError, match=r"posterior.json: "):
        jaxsbi.load(run)


def forge(run, tensors):
    """Replace the arrays, with valid checksums."""
    blob = tensors if isinstance(tensors, bytes) else safetensors.numpy.save(tensors)
    arrays(run).write_bytes(blob)
    content = document(run)
    content["arrays"] |= {"size": len(blob), "sha256": files.hashlib.sha256(blob).hexdigest()}
    rewrite(run, content)


def test_another_array_in_the_file(run):
    forge(run, safetensors.numpy.load_file(arrays(run)) | {"more": np.ones(3)})
    with pytest.raises(ValueError, match=r"expected none but those named, got \['more'\]"):
        jaxsbi.load(run)


def test_a_newer_minor_version_may_have_more_fields(runs, run):
    content = document(run)
    content["version"] = [files.VERSION[0], files.VERSION[1] + 1]
    content["more"] = {"$new": 1}
    content["method"]["extra"] = 1
    rewrite(run, content)
    with pytest.warns(UserWarning, match=r"newer version .*the file.more, method.extra. Upgrade"):
        loaded = jaxsbi.load(run)
    runs.same(loaded, runs.small())


def test_an_older_file_without_a_field_has_its_default(runs, run):
    content = document(run)
    del content["method"]["summary"]
    rewrite(run, content)
    runs.same(jaxsbi.load(run), runs.small())
    del content["history"]["stopped"]
    rewrite(run, content)
    with pytest.raises(ValueError, match=r"history: .*none named \['stopped'\]"):
        jaxsbi.load(run)


def mutated(source, data):
    """Return bytes with a few of them flipped, cut out, repeated or replaced."""
    data = bytearray(data)
    for _ in range(source.randint(1, 3)):
        at = source.randrange(len(data))
        kind = source.randrange(4)
        if kind == 0:
            data[at] ^= 1 << source.randrange(8)
        elif kind == 1:
            del data[at : at + source.randint(1, 200)]
        elif kind == 2:
            data[at:at] = data[at : at + source.randint(1, 200)]
        else:
            data[at] = source.choice(b'{}[]",:0-e.\\\x00\xff')
    return bytes(data)


@pytest.mark.parametrize("name", [files.JSON, "arrays"])
def test_damaged_files_are_refused(runs, run, name):
    source, path = random.Random(1), arrays(run) if name == "arrays" else run / name
    original, loads = path.read_bytes(), 0
    for _ in range(MUTATIONS):
        path.write_bytes(mutated(source, original))
        try:
            loaded = jaxsbi.load(run)
        except REFUSED:
            continue
        runs.same(loaded, runs.small())  # space between two numbers, perhaps
        loads += 1
    assert loads < MUTATIONS / 10


def test_forged_files_of_arrays_never_do_more_than_raise(run):
    """Behind a valid checksum, most of the mutations hit the header."""
    source, original = random.Random(2), arrays(run).read_bytes()
    start = 8 + int.from_bytes(original[:8], "little")
    refused = 0
    for _ in range(MUTATIONS):
        forge(run, mutated(source, original[:start]) + original[start:])
        try:
            jaxsbi.load(run)
        except REFUSED:
            refused += 1
    assert refused > MUTATIONS / 2


JUNK = (
    *(
        None,
        True,
        -1,
        10**30,
        1e308,
        "",
        "nan",
        "\ud800",
        [],
        [[]],
        {},
        {"": 0},
        [1, "a"],
        "a" * 999,
    ),
    *({"$type": "Prior"}, {"$type": "dist.Normal"}, {"$list": {}}, {"$ordered": [1]}, {"$key": 3}),
    *({"$type": "constraints.Interval"}, {"$type": "transforms.ComposeTransform", "parts": 1}),
    {"$key": "threefry2x32", "data": {"$values": [1], "dtype": "uint32", "shape": [1]}},
    {"$scalar": 1e308, "dtype": "int8"},
    {"$spec": "float32", "shape": [10**18, 10**18]},
)


def places(node):
    """Return every (container, key) below a JSON node."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    found = [(node, key) for key, _ in items]
    for container, key in tuple(found):
        if isinstance(container[key], dict | list):
            found += places(container[key])
    return found


def test_forged_content_never_does_more_than_raise(run):
    """Behind a valid checksum: any part of the document replaced by another, or by junk."""
    source, original, refused = random.Random(3), (run / files.JSON).read_text(), 0
    for _ in range(MUTATIONS):
        content = json.loads(original)
        every = [place for place in places(content) if place[1] not in ("format", "sha256")]
        (container, key), (other, chosen) = source.sample(every, 2)
        container[key] = source.choice((*JUNK, json.loads(json.dumps(other[chosen]))))
        rewrite(run, content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                jaxsbi.load(run)
            except REFUSED:
                refused += 1
    assert refused > MUTATIONS / 2
