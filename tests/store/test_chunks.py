"""Claims: of several writers one has a chunk, and not for longer than it lives."""

import json
import os
import subprocess
import sys
import time

from jaxsbi.store import chunks as files
from tests.store.programs import wait_for


def test_a_claim_of_a_live_writer_is_respected_and_of_a_dead_one_taken(tmp_path, monkeypatch):
    folder = tmp_path / "chunks"
    folder.mkdir()
    with files.Writer(files.Chunks(folder)) as one, files.Writer(files.Chunks(folder)) as other:
        assert one.claim(0)
        assert not other.claim(0)
        assert other.claim(1)
        path = folder / "00000002.claim"
        far = {"host": "elsewhere", "pid": 1, "began": "", "token": "x"}
        path.write_text(json.dumps(far))
        assert not one.claim(2)
        os.utime(path, (time.time() - 2 * files.STALE,) * 2)
        assert one.claim(2)
        assert not other.claim(2)
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        here = json.loads((folder / "00000000.claim").read_text())
        (folder / "00000003.claim").write_text(json.dumps({**here, "pid": gone.pid}))
        assert other.claim(3)
        (folder / "00000004.claim").write_text("{")  # none of ours is written in part
        assert one.claim(4)
    assert not list(folder.iterdir())


def test_a_writer_touches_its_claims(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "HEARTBEAT", 0.05)
    folder = tmp_path / "chunks"
    folder.mkdir()
    with files.Writer(files.Chunks(folder)) as writer:
        assert writer.claim(0)
        path = folder / "00000000.claim"
        os.utime(path, (0, 0))
        wait_for(lambda: path.stat().st_mtime > 0, 10)
