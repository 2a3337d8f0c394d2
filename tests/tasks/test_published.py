"""A published file is found, or downloaded once; another content is refused."""

import hashlib
import io
import urllib.request

import pytest

from jaxsbi.tasks.published import fetch

CONTENT = b"numbers"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ASKED = ("set", "a.dat", "https://example.org/a.dat", SHA256)


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """Return the addresses that were opened; nothing is given, and the cache is empty."""
    opened = []

    def urlopen(url, timeout):
        opened.append(url)
        return io.BytesIO(CONTENT)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.delenv("JAXSBI_DATA", raising=False)
    monkeypatch.setenv("JAXSBI_CACHE", str(tmp_path / "cache"))
    return opened


def test_a_given_file_is_taken(asked, monkeypatch, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.dat").write_bytes(CONTENT)
    monkeypatch.setenv("JAXSBI_DATA", str(tmp_path))
    assert fetch(*ASKED) == tmp_path / "set" / "a.dat"
    assert asked == []


def test_a_missing_one_is_downloaded_once(asked, monkeypatch, tmp_path):
    monkeypatch.setenv("JAXSBI_DATA", str(tmp_path / "empty"))
    for _ in range(2):
        assert fetch(*ASKED) == tmp_path / "cache" / "set" / "a.dat"
    assert asked == [ASKED[2]]
    assert [p.name for p in (tmp_path / "cache" / "set").iterdir()] == ["a.dat"]


def test_another_content_is_refused(asked):
    with pytest.raises(ValueError, match=r"expected SHA-256 0000, got .*download it by hand"):
        fetch(*ASKED[:3], "0000")
