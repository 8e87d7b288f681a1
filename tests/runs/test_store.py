"""Several processes may write at once, be killed at any moment and meet a damaged file: what is read is whole."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest

from tunesmith.runs.store import opened

WRITER = """
import sys
from pathlib import Path
from tunesmith.runs.store import opened

path, which, n = sys.argv[1:]
with opened(Path(path)) as store:
    for i in range(int(n)):
        store.put({f"{which}/{i}/{j}".encode(): f"{which} {i} {j}".encode() for j in range(20)})
        store.put({b"shared": f"{which} {i}".encode()})
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "kept"


def writer(path, which, n):
    return subprocess.Popen([sys.executable, "-c", WRITER, path, which, str(n)], stderr=subprocess.PIPE, text=True)


def keys(which, i):
    return [f"{which}/{i}/{j}".encode() for j in range(20)]


@pytest.mark.parametrize("damaged", [False, True])
def test_two_processes_may_write_at_once_and_nothing_is_lost(path, damaged):
    if damaged:
        path.write_bytes(b"no database" * 999)
    writers = [writer(path, name, 25) for name in "ab"]
    said = "".join(one.communicate()[1] for one in writers)
    assert said.count("\n") == damaged
    asked = [key for which in "ab" for i in range(25) for key in keys(which, i)]
    with opened(path) as store:
        found = store.get(asked)
        assert store.get([b"shared"])[b"shared"] in (b"a 24", b"b 24")
    assert found == {key: key.replace(b"/", b" ") for key in asked}
    assert [one.name for one in path.parent.glob("*.damaged*")] == ["kept.damaged"] * damaged


def test_a_writer_killed_at_any_moment_leaves_a_whole_file(path):
    for attempt in range(4):
        one = writer(path, str(attempt), 10**6)
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.2 + 0.13 * attempt)
        os.kill(one.pid, signal.SIGKILL)
        one.communicate()
    written = 0
    with opened(path) as store:
        while found := store.get(keys("0", written)):
            assert len(found) == 20  # a part is there as a whole or not at all
            written += 1
    assert written
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_file_that_another_process_put_aside_is_begun_again(path):
    with opened(path) as store:
        store.put({b"1": b"one"})
        path.rename(path.with_name("aside"))
        store.put({b"2": b"two"})
        assert store.get([b"1", b"2"]) == {b"2": b"two"}


def test_a_writer_waits_for_another_and_gives_up_in_the_end(path, monkeypatch, capsys):
    monkeypatch.setattr("tunesmith.runs.store.PATIENCE", 0.05)
    with opened(path) as store:
        store.put({b"1": b"one"})
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with opened(path) as store:
            store.put({b"2": b"two"})
            assert store.get([b"1"]) == {}
    assert capsys.readouterr().err.count("answers are not kept (database is locked)") == 1
    with opened(path) as store:
        assert store.get([b"1"]) == {b"1": b"one"}


def test_what_is_of_another_layout_is_put_aside(path, capsys):
    with closing(sqlite3.connect(path)) as file:
        file.execute("CREATE TABLE answers (key TEXT, other TEXT)")
    with opened(path) as store:
        store.put({b"1": b"one"})
        assert store.get([b"1"]) == {b"1": b"one"}
    assert "put aside" in capsys.readouterr().err


def test_without_a_file_nothing_is_kept(capsys):
    with opened(None) as store:
        store.put({b"1": b"one"})
        assert store.get([b"1"]) == {}
    assert capsys.readouterr().err == ""


def test_more_keys_than_one_query_takes_are_looked_up(path):
    values = {str(i).encode(): b"x" for i in range(1234)}
    with opened(path) as store:
        store.put(values)
        assert store.get([*values, b"none"]) == values
