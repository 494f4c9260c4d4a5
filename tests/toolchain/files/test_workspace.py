"""The work folder: one owner at a time, kept when something goes wrong, gone when all went well."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import pytest

from exporters.artifact.errors import NotAvailable, SlmcError
from toolchain.files.workspace import BEST_PLAN, workspace, write_whole

INPUTS = {"model": "a", "seed": 1, "options": {"head": ["int8"]}}


def interrupted(output: Path, **more: object) -> Path:
    """The work folder of a build that stopped after writing a file."""
    with pytest.raises(ZeroDivisionError), workspace(output, INPUTS | more, resume=False) as folder:
        (folder / "tuning.pt").touch()
        raise ZeroDivisionError
    return folder


def test_gone_after_success_kept_after_failure(tmp_path: Path) -> None:
    with workspace(tmp_path / "out", INPUTS, resume=False) as folder:
        assert folder == tmp_path / "out.slmc-work"
        (folder / "layers").mkdir()
    assert list(tmp_path.iterdir()) == []
    assert (interrupted(tmp_path / "out") / "tuning.pt").exists()


def test_resume_finds_what_was_kept_and_a_fresh_start_does_not(tmp_path: Path) -> None:
    interrupted(tmp_path / "out")
    with pytest.raises(ZeroDivisionError), workspace(tmp_path / "out", INPUTS, resume=True) as folder:
        assert (folder / "tuning.pt").exists()
        raise ZeroDivisionError
    with workspace(tmp_path / "out", INPUTS, resume=False) as folder:
        assert not (folder / "tuning.pt").exists()


def test_an_unfinished_artifact_with_a_program_is_ours(tmp_path: Path) -> None:
    """slmc-run goes along with --runtime; a build that was cut behind its export goes on."""
    output = tmp_path / "out"
    with pytest.raises(SlmcError, match="cut"), workspace(output, {}, resume=False) as folder:
        native = folder / "artifact" / "native" / "linux-x86_64"
        native.mkdir(parents=True)
        for name in ("libslmc_ops.so", "slmc-run"):
            (native / name).write_bytes(b"program")
        raise SlmcError("cut")
    with workspace(output, {}, resume=True) as folder:
        pass
    assert not folder.exists()


def test_resume_without_anything_starts_anew(tmp_path: Path) -> None:
    with workspace(tmp_path / "deep" / "out", INPUTS, resume=True) as folder:
        assert json.loads((folder / "inputs.json").read_text()) == INPUTS


def test_resume_with_other_inputs_is_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    folder = interrupted(tmp_path / "out")
    changed = INPUTS | {"seed": 2, "model": "b"}
    with pytest.raises(SlmcError, match=r"model, seed changed"), workspace(tmp_path / "out", changed, resume=True):
        pass
    assert (folder / "tuning.pt").exists()


def test_a_torn_record_starts_anew(tmp_path: Path) -> None:
    folder = interrupted(tmp_path / "out")
    (folder / "inputs.json").write_text('{"model')
    with workspace(tmp_path / "out", INPUTS, resume=True) as folder:
        assert not (folder / "tuning.pt").exists()


def test_one_owner_at_a_time(tmp_path: Path) -> None:
    with workspace(tmp_path / "out", INPUTS, resume=False) as folder:
        (folder / "tuning.pt").touch()
        with (
            pytest.raises(SlmcError, match="another build is at work"),
            workspace(tmp_path / "out", INPUTS, resume=False),
        ):
            pass
        with workspace(tmp_path / "other", INPUTS, resume=False):
            pass
        assert (folder / "tuning.pt").exists()


def test_a_lock_that_its_last_owner_removed_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out.slmc-work"
    monkeypatch.setattr("toolchain.files.workspace.fcntl.flock", lambda *_: shutil.rmtree(folder))
    with pytest.raises(SlmcError, match="just ended"), workspace(tmp_path / "out", INPUTS, resume=False):
        pass


def test_an_interruption_says_where_things_are(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt, match=r"slmc-work keeps.*--resume") as stop,
        workspace(tmp_path / "out", INPUTS, resume=False) as folder,
    ):
        raise KeyboardInterrupt
    assert BEST_PLAN not in str(stop.value)
    with pytest.raises(KeyboardInterrupt, match=BEST_PLAN), workspace(tmp_path / "out", INPUTS, resume=True) as folder:
        write_whole(folder / BEST_PLAN, "{}")
        raise KeyboardInterrupt


def test_a_full_disk_is_not_a_fault_of_ours(tmp_path: Path) -> None:
    with pytest.raises(NotAvailable, match=r"no space left.*--resume"), workspace(tmp_path / "a", INPUTS, resume=False):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(IsADirectoryError), workspace(tmp_path / "b", INPUTS, resume=False):
        raise IsADirectoryError(errno.EISDIR, "Is a directory")


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SlmcError, match="cannot be written"), workspace(tmp_path / "file" / "out", {}, resume=False):
        pass


def test_texts_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "plan.json"
    write_whole(file, "old")

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("toolchain.files.workspace.os.fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        write_whole(file, "new")
    assert file.read_text() == "old"
