"""Nothing that slmc did not write is replaced or removed: outputs, work folders, links, --force or not."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from exporters.artifact.errors import SlmcError
from exporters.artifact.manifest import MANIFEST_NAME, Bytes, Io, Manifest, Producer, Source
from toolchain.delivery.package import publish, write_sums
from toolchain.files.outputs import (
    BASELINE,
    FILE_KINDS,
    PLAN,
    TEXT,
    check_output,
    check_output_file,
    claim_folder,
    put_aside,
    remove_artifact,
)
from toolchain.files.workspace import MARK, clear_staging, workspace

BARE = Manifest(
    1, Producer("slmc", "1"), "now", Source("m", "spikegpt", "ab", 1), Io("t", "l", ()), {}, Bytes(1, 1, 1, 1), None,
    None, None, (), {},
)  # fmt: skip


def artifact(folder: Path, text: str = "new") -> Path:
    """The smallest folder that is an artifact."""
    (folder / "native" / "linux-x86_64").mkdir(parents=True)
    (folder / "native" / "linux-x86_64" / "libslmc_ops.so").write_bytes(b"\x7fELF")
    (folder / "model.onnx").write_text(text)
    files = write_sums(folder)
    (folder / MANIFEST_NAME).write_text(dataclasses.replace(BARE, files=files).to_json())
    write_sums(folder)
    return folder


def tree(folder: Path) -> dict[str, str]:
    """Everything below a folder: contents of files, targets of links."""
    return {
        str(path.relative_to(folder)): str(path.readlink()) if path.is_symlink() else
        path.read_bytes().hex() if path.is_file() else "folder" for path in sorted(folder.rglob("*"))
    }  # fmt: skip


def _note(at: Path) -> None:
    at.parent.mkdir(parents=True, exist_ok=True)
    at.write_text("a thesis")


def _link(at: Path) -> None:
    at.parent.mkdir(parents=True, exist_ok=True)
    at.symlink_to("/etc/hostname")


FOREIGN: tuple[tuple[str, Callable[[Path], None]], ...] = (
    ("notes.txt", _note), (".git/HEAD", _note), (".DS_Store", _note), ("native/linux-x86_64/notes.txt", _note),
    ("native/other/libslmc_ops.so", _note), ("thesis", Path.mkdir), ("link", _link), ("model.onnx.bak", _note),
)  # fmt: skip


def test_an_artifact_as_it_was_written_is_replaced(tmp_path: Path) -> None:
    artifact(tmp_path / "out", "old")
    publish(artifact(tmp_path / "work" / "artifact"), tmp_path / "out", force=True)
    assert (tmp_path / "out" / "model.onnx").read_text() == "new"
    assert list((tmp_path / "work").iterdir()) == []


def test_what_stood_there_goes_only_with_force_and_only_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the two renamings nothing is lost, and going on puts the new one in place."""
    out, staging = artifact(tmp_path / "out", "old"), artifact(tmp_path / "work" / "artifact")
    with pytest.raises(SlmcError, match="--force"):
        publish(staging, out, force=False)
    rename = Path.rename

    def killed(self: Path, target: Path) -> Path:
        if self == staging:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", killed)
        publish(staging, out, force=True)
    assert not out.exists() and (staging.parent / "replaced" / "model.onnx").read_text() == "old"
    publish(staging, out, force=True)
    assert (out / "model.onnx").read_text() == "new"
    assert list(staging.parent.iterdir()) == []


@pytest.mark.parametrize(("name", "make"), FOREIGN)
def test_an_artifact_with_anything_beside_it_is_not(tmp_path: Path, name: str, make: Callable[[Path], None]) -> None:
    make(artifact(tmp_path / "out") / name)
    before = tree(tmp_path)
    with pytest.raises(SlmcError, match="did not write") as refused:
        check_output(tmp_path / "out", force=True)
    assert name.split("/", maxsplit=1)[0] in str(refused.value) and tree(tmp_path) == before


def test_the_first_few_are_named(tmp_path: Path) -> None:
    artifact(tmp_path / "out")
    for i in range(9):
        (tmp_path / "out" / f"x{i}").touch()
    with pytest.raises(SlmcError, match=r"'x0', 'x1', 'x2' and 6 more\)"):
        check_output(tmp_path / "out", force=True)


@pytest.mark.parametrize("text", ['{"name": "my web app"}', "", "[]", "{", '{"schema_version": 1}', "\0"])
def test_a_folder_with_some_manifest_is_no_artifact(tmp_path: Path, text: str) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "manifest.json").write_text(text)
    (tmp_path / "app" / "thesis.txt").touch()
    before = tree(tmp_path)
    with pytest.raises(SlmcError, match="not an artifact of this slmc"):
        check_output(tmp_path / "app", force=True)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("new", ["my own words", "nex"])
def test_a_listed_file_that_somebody_changed_is_his(tmp_path: Path, new: str) -> None:
    (artifact(tmp_path / "out") / "model.onnx").write_text(new)
    with pytest.raises(SlmcError, match="changed since slmc wrote it"):
        check_output(tmp_path / "out", force=True)


def test_an_artifact_with_a_file_missing_may_go(tmp_path: Path) -> None:
    (artifact(tmp_path / "out") / "model.onnx").unlink()
    check_output(tmp_path / "out", force=True)


@pytest.mark.parametrize("target", ["folder", "file", "nowhere"])
def test_links_are_never_followed(tmp_path: Path, target: str) -> None:
    artifact(tmp_path / "folder")
    (tmp_path / "file").write_text('"plan_version" "model_sha256" "calibration_sha256"')
    (tmp_path / "out").symlink_to(target)
    (tmp_path / "out2.slmc-work").symlink_to(target)
    before = tree(tmp_path)
    with pytest.raises(SlmcError, match="a link"):
        check_output(tmp_path / "out", force=True)
    with pytest.raises(SlmcError, match=r"a link|a folder"):
        check_output_file(tmp_path / "out", PLAN, force=True)
    with pytest.raises(SlmcError, match="a link"), workspace(tmp_path / "out2", {}, resume=False):
        pass
    assert tree(tmp_path) == before


def test_what_comes_while_an_artifact_is_replaced_stays(tmp_path: Path) -> None:
    _note(artifact(tmp_path / "replaced") / "notes.txt")
    remove_artifact(tmp_path / "replaced")
    assert tree(tmp_path / "replaced") == {"notes.txt": b"a thesis".hex()}


WORK: tuple[tuple[str, Callable[[Path], None]], ...] = (
    ("data.txt", _note), ("layers/data.txt", _note), ("layers/x.npz", _note), ("artifact/notes.txt", _note),
    ("artifact/native/x", _note), ("replaced/thesis.txt", _note), ("lock", _link), ("inputs.json", _link),
    ("statistics.safetensors", _link), ("artifact", _link), ("layers", _link), ("thesis", Path.mkdir),
)  # fmt: skip


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize(("name", "make"), WORK)
def test_a_work_folder_is_ours_by_its_mark_and_by_its_names(
    tmp_path: Path, name: str, make: Callable[[Path], None], marked: bool, resume: bool
) -> None:
    work = tmp_path / "out.slmc-work"
    if marked:
        with pytest.raises(ZeroDivisionError), workspace(tmp_path / "out", {}, resume=False):
            raise ZeroDivisionError
        (work / name).unlink(missing_ok=True)
    work.mkdir(exist_ok=True)
    make(work / name)
    before = tree(tmp_path)
    with pytest.raises(SlmcError, match="did not"), workspace(tmp_path / "out", {}, resume=resume):
        pass
    assert tree(tmp_path) == before


def test_another_build_that_is_at_work_is_not_taken_for_somebody_elses(tmp_path: Path) -> None:
    """Its files come and go while they are looked at."""
    with workspace(tmp_path / "out", {}, resume=False) as folder:
        (folder / "statistics.new").touch()
        with pytest.raises(SlmcError, match="another build"), workspace(tmp_path / "out", {}, resume=False):
            pass


@pytest.mark.parametrize("make", [_note, _link, os.mkfifo])
def test_a_mark_that_is_none(tmp_path: Path, make: Callable[[Path], None]) -> None:
    work = tmp_path / "out.slmc-work"
    work.mkdir()
    if make is _note:
        (work / MARK).write_text("x" * 1000)
    else:
        make(work / MARK)
    (work / "inputs.json").write_text("mine")
    with pytest.raises(SlmcError, match="did not make"), workspace(tmp_path / "out", {}, resume=False):
        pass
    assert (work / "inputs.json").read_text() == "mine"


def test_what_comes_while_a_build_works_stays(tmp_path: Path) -> None:
    with workspace(tmp_path / "out", {}, resume=False) as folder:
        _note(folder / "data.txt")
        _note(folder / "layers" / "data.txt")
        (folder / "layers" / "a--int8--nearest.npz").touch()
        _note(folder / "artifact" / "mine.txt")
        with pytest.raises(SlmcError, match="did not write"):
            clear_staging(folder)
    names = {"data.txt", "layers", "layers/data.txt", "artifact", "artifact/mine.txt"}
    assert tree(folder).keys() == names


def test_everything_of_ours_goes(tmp_path: Path) -> None:
    with workspace(tmp_path / "out", {}, resume=False) as folder:
        for name in (
            "statistics.safetensors",
            "journal.jsonl",
            "tuning.pt",
            "layers/a--b--c.npz",
            "layers/a--b--c.partial",
        ):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).touch()
        artifact(folder / "artifact")
        assert not clear_staging(folder).exists()
        artifact(folder / "artifact")
        artifact(folder / "replaced")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_in_the_place_of_the_work_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "out.slmc-work").mkdir()  # a kill between making and marking it leaves such a one
    with workspace(tmp_path / "out", {}, resume=True):
        pass


@pytest.mark.parametrize("kind", [kind for kind in FILE_KINDS if kind.marks])
def test_files_are_replaced_by_their_kind_alone(tmp_path: Path, kind: object) -> None:
    out = tmp_path / "x"
    out.write_text("a thesis about slmc, its manifest and its plan_version")
    with pytest.raises(SlmcError, match="is not replaced"):
        check_output_file(out, kind, force=True)  # type: ignore[arg-type]
    out.write_bytes(b"")
    check_output_file(out, kind, force=True)  # type: ignore[arg-type]
    out.unlink()
    os.mkfifo(out)
    with pytest.raises(SlmcError, match="is not replaced"):
        check_output_file(out, kind, force=True)  # type: ignore[arg-type]


def test_a_plan_is_not_replaced_by_a_baseline(tmp_path: Path) -> None:
    (tmp_path / "x").write_text(json.dumps({"plan_version": 1, "model_sha256": "", "calibration_sha256": ""}))
    check_output_file(tmp_path / "x", PLAN, force=True)
    with pytest.raises(SlmcError, match="not a baseline"):
        check_output_file(tmp_path / "x", BASELINE, force=True)
    with pytest.raises(SlmcError, match="--force"):
        check_output_file(tmp_path / "x", PLAN, force=False)


def test_a_text_is_kept_aside(tmp_path: Path) -> None:
    for text in ("one", "two", "three"):
        check_output_file(tmp_path / "x.txt", TEXT, force=True)
        put_aside(tmp_path / "x.txt")
        (tmp_path / "x.txt").write_text(text)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
        "x.txt": "three",
        "x.txt.old-1": "one",
        "x.txt.old-2": "two",
    }


@pytest.mark.parametrize("name", ["notes.txt", "study.md", "cells.jsonl"])
def test_a_folder_that_is_not_a_studys_is_left_alone(tmp_path: Path, name: str) -> None:
    _note(tmp_path / name)
    with pytest.raises(SlmcError, match="did not create this folder for a study"):
        claim_folder(tmp_path, ".mark", ("study.md", "cells.jsonl"), "a study")
    assert tree(tmp_path) == {name: b"a thesis".hex()}


def test_a_studys_folder_goes_on_with_foreign_files_beside_it_but_not_through_links(tmp_path: Path) -> None:
    for _ in range(2):
        claim_folder(tmp_path / "s", ".mark", ("study.md",), "a study")
        _note(tmp_path / "s" / "notes.txt")
    _link(tmp_path / "s" / "study.md")
    with pytest.raises(SlmcError, match=r"study\.md: not a regular file"):
        claim_folder(tmp_path / "s", ".mark", ("study.md",), "a study")
