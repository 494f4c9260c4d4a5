"""An artifact that was altered in any way is refused, with one line that says how."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from exporters.errors import SlmcError
from exporters.manifest import read_manifest
from targets.verify import file_sha256, open_artifact, read_sums


def sign(folder: Path) -> None:
    """Checksums of what is there now, as one would write them who alters an artifact on purpose."""
    names = sorted(
        p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != "SHA256SUMS"
    )
    (folder / "SHA256SUMS").write_text("".join(f"{file_sha256(folder / name)}  {name}\n" for name in names))


def change(folder: Path, **values: object) -> None:
    """Other values in the manifest, and checksums that fit."""
    document = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(document | values))
    sign(folder)


def flip(path: Path, at: int = 40) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def listed(folder: Path, name: str) -> None:
    document = json.loads((folder / "manifest.json").read_text())
    change(folder, files=document["files"] | {name: {"bytes": 1, "sha256": "00" * 32}})


def extra(folder: Path, name: str = "run.py") -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("import os")


def linked(folder: Path, name: str, to: Path) -> None:
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(to)


CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a byte of the weights": (lambda f: flip(f / "model.onnx.data", 3), "model.onnx.data: the contents differ"),
    "a byte of the graph": (lambda f: flip(f / "model.onnx"), "model.onnx: the contents differ"),
    "a byte of a figure": (lambda f: flip(f / "manifest.json", 24), "manifest.json"),
    "a byte of the sums": (lambda f: flip(f / "SHA256SUMS", 3), r"manifest.json: the contents differ|SHA256SUMS"),
    "the weights longer": (
        lambda f: (f / "model.onnx.data").open("ab").write(b"0"), r"model.onnx.data: \d+ bytes, the manifest says",
    ),
    "weights and sums": (
        lambda f: (flip(f / "model.onnx.data", 3), sign(f)), "SHA256SUMS and manifest.json disagree on model.onnx.data",
    ),
    "no weights": (lambda f: (f / "model.onnx.data").unlink(), "model.onnx.data is missing"),
    "no sums": (lambda f: (f / "SHA256SUMS").unlink(), "SHA256SUMS: cannot be read"),
    "sums of another form": (lambda f: (f / "SHA256SUMS").write_text("abc\n"), "SHA256SUMS: line 1 is not"),
    "a file too much": (extra, "run.py: no part of this artifact"),
    "a file too much, deep inside": (lambda f: extra(f, "native/x.so"), "native/x.so: no part"),
    "a file too much, summed up": (lambda f: (extra(f), sign(f)), "disagree on run.py"),
    "a link for a file": (lambda f: linked(f, "model.onnx.data", Path("/etc/hostname")), "model.onnx.data: a link"),
    "a link too much": (lambda f: linked(f, "more", Path("/etc")), "more: a link"),
    "a pipe": (lambda f: os.mkfifo(f / "pipe"), "pipe: neither file nor folder"),
    "a path that climbs out": (lambda f: listed(f, "../model.onnx"), "leaves the artifact"),
    "a path from the root": (lambda f: listed(f, "/etc/passwd"), "leaves the artifact"),
    "a newer version": (lambda f: change(f, schema_version=2), "schema_version is 2, this slmc reads 1"),
    "another schema": (lambda f: change(f, licence="MIT"), "manifest.json: unknown licence"),
    "a figure of another type": (lambda f: change(f, created=5), "manifest.json.created: expected str, found 5"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "no manifest.json there"),
}  # fmt: skip


def test_as_it_was_written(packed):
    assert open_artifact(packed.artifact) == read_manifest(packed.artifact)


@pytest.mark.parametrize("case", CASES)
def test_refused(packed, case):
    alter, message = CASES[case]
    alter(packed.artifact)
    with pytest.raises(SlmcError, match=message) as error:
        open_artifact(packed.artifact)
    assert error.value.exit_code == 2 and "\n" not in str(error.value)


def test_every_byte_of_the_manifest_counts(packed):
    path = packed.artifact / "manifest.json"
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        flip(path, at)
        with pytest.raises(SlmcError):
            open_artifact(packed.artifact)
        path.write_bytes(whole)


def test_sums_of_known_bytes(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(tmp_path / "abc") == known == hashlib.sha256(b"abc").hexdigest()
    (tmp_path / "sums").write_text(f"{known}  a name with spaces\n")
    assert read_sums(tmp_path / "sums") == {"a name with spaces": known}
