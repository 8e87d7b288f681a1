"""A checkpoint is whole or absent, and what is not as it was written is never used."""

import errno
import os
from pathlib import Path

import pytest

from tunesmith.errors import FitError, RunError
from tunesmith.runs import checkpoint
from tunesmith.runs.checkpoint import check, newest, write

FILES = {"weights.bin": bytes(range(256)) * 8, "logs/steps.jsonl": b'{"step": 1}\n'}


def fill(folder):
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)


def test_what_is_written_is_found_again(tmp_path):
    write(tmp_path, 7, fill, {"epoch": 2})
    found = newest(tmp_path)
    assert (found.step, found.facts) == (7, {"epoch": 2})
    assert (found.folder / "weights.bin").read_bytes() == FILES["weights.bin"]
    assert newest(tmp_path / "nowhere") is None


def test_the_two_newest_stay_by_step_and_not_by_time(tmp_path):
    for step in (9, 10, 100):
        write(tmp_path, step, fill, {})
    os.utime(tmp_path / "step-000000010", (2e9, 2e9))
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-000000010", "step-000000100"]
    assert newest(tmp_path).step == 100


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def zero_tail(path):
    content = path.read_bytes()
    path.write_bytes(content[:-8] + bytes(8))


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"\0")


def remove(path):
    path.unlink()


@pytest.mark.parametrize("harm", [flip, cut, zero_tail, lengthen, remove])
@pytest.mark.parametrize("name", ["weights.bin", "logs/steps.jsonl", "manifest.json"])
def test_a_damaged_checkpoint_is_put_aside_and_the_one_before_is_used(tmp_path, harm, name):
    write(tmp_path, 1, fill, {})
    write(tmp_path, 2, fill, {})
    harm(tmp_path / "step-000000002" / name)
    said = []
    assert newest(tmp_path, said.append).step == 1
    assert Path(name).name in said[0]
    assert (tmp_path / "step-000000002.corrupt").is_dir()
    assert newest(tmp_path, said.append).step == 1
    assert len(said) == 1


def test_with_nothing_that_verifies_there_is_none(tmp_path):
    (tmp_path / "step-000000003").mkdir()
    assert newest(tmp_path) is None
    (tmp_path / "step-000000003").mkdir()
    assert newest(tmp_path) is None
    assert {path.name for path in tmp_path.iterdir()} == {"step-000000003.corrupt", "step-000000003.corrupt1"}


def test_what_a_killed_writer_left_is_removed(tmp_path):
    write(tmp_path, 1, fill, {})
    (tmp_path / ".step-000000002.part-99").mkdir()
    assert newest(tmp_path).step == 1
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001"]


@pytest.mark.parametrize(("number", "kind", "message"), [
    (errno.ENOSPC, FitError, "disk is full"), (errno.EIO, RunError, "cannot be written"),
    (errno.EACCES, RunError, "cannot be written"), (errno.EROFS, RunError, "cannot be written"),
])  # fmt: skip
@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_failing_disk_leaves_earlier_checkpoints_as_they_were(tmp_path, monkeypatch, number, kind, message, at):
    write(tmp_path, 1, fill, {})
    calls, real = [], os.fsync

    def failing(handle):
        calls.append(handle)
        if len(calls) == at:
            raise OSError(number, os.strerror(number))
        real(handle)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(kind, match=message) as error:
        write(tmp_path, 2, fill, {})
    assert "--resume" in error.value.fix
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001"]
    assert check(tmp_path / "step-000000001") is None


def test_a_crash_between_rename_and_rotation_is_harmless(tmp_path, monkeypatch):
    write(tmp_path, 1, fill, {})
    write(tmp_path, 2, fill, {})

    def crash(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "sync", lambda path: crash(path) if path == tmp_path else None)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, 3, fill, {})
    monkeypatch.undo()
    assert newest(tmp_path).step == 3
