"""An artifact that was altered in any way is refused, with one line that says how."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from exporters.artifact.errors import SlmcError
from exporters.artifact.manifest import read_manifest
from targets.device.session import open_session
from targets.device.verify import file_sha256, open_artifact, read_sums, verify_unchanged


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
    "a link to another file": (
        lambda f: linked(f, "model.onnx.data", Path("/etc/hostname")), r"model.onnx.data: \d+ bytes, the manifest says",
    ),
    "a link to nowhere": (lambda f: linked(f, "model.onnx.data", Path("nowhere")), "model.onnx.data is missing"),
    "a link to a folder": (lambda f: linked(f, "model.onnx.data", Path("/etc")), "model.onnx.data is missing"),
    "a link to a device": (lambda f: linked(f, "SHA256SUMS", Path("/dev/zero")), "SHA256SUMS: a device, and a regular"),
    "a pipe for the sums": (lambda f: ((f / "SHA256SUMS").unlink(), os.mkfifo(f / "SHA256SUMS")), "SUMS: a FIFO"),
    "a link too much": (lambda f: linked(f, "more", Path("/etc")), "more: a link"),
    "a link like a neighbour": (lambda f: linked(f, "git", Path("/etc")), "git: a link"),
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


NEIGHBOURS = (
    ".DS_Store", ".git/HEAD", ".git/objects/00/x", ".gitattributes", ".gitignore", "__pycache__/run.cpython-311.pyc",
    "desktop.ini", "Thumbs.db", "._model.onnx",
)  # fmt: skip


def test_what_versioning_and_file_managers_leave_beside_it_does_not_matter(packed):
    for name in NEIGHBOURS:
        (packed.artifact / name).parent.mkdir(parents=True, exist_ok=True)
        (packed.artifact / name).write_text("x")
    assert open_artifact(packed.artifact) == read_manifest(packed.artifact)
    flip(packed.artifact / "model.onnx")
    with pytest.raises(SlmcError, match=r"model\.onnx: the contents differ"):
        open_artifact(packed.artifact)


@pytest.mark.parametrize("name", ["pycache", ".env", "git", "ds_store", ".hidden.so", "sitecustomize.py"])
def test_what_only_looks_like_it_does(packed, name):
    (packed.artifact / name).write_text("x")
    with pytest.raises(SlmcError, match="no part of this artifact"):
        open_artifact(packed.artifact)


def hub(artifact: Path) -> Path:
    """The artifact as a hub's cache keeps it: links in a snapshot to blobs that are named by their hashes."""
    snapshot = artifact.parent / "snapshots" / "main"
    for path in sorted(p for p in artifact.rglob("*") if p.is_file()):
        blob = artifact.parent / "blobs" / file_sha256(path)
        blob.parent.mkdir(exist_ok=True)
        blob.write_bytes(path.read_bytes())
        link = snapshot / path.relative_to(artifact)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot


def test_links_as_a_hubs_cache_makes_them(packed):
    snapshot = hub(packed.artifact)
    manifest = open_artifact(snapshot)
    assert manifest == read_manifest(packed.artifact)
    session = open_session(snapshot / "model.onnx", manifest.io, native=None)
    plain = open_session(packed.artifact / "model.onnx", manifest.io, native=None)
    tokens = np.array([[1, 2]], np.int64)
    assert (session.run(tokens) == plain.run(tokens)).all()
    flip((snapshot / "model.onnx").resolve())
    with pytest.raises(SlmcError, match=r"model\.onnx: the contents differ"):
        open_artifact(snapshot)


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


def test_an_artifact_that_is_replaced_while_it_is_measured_is_not_judged(artifact: Path, tmp_path: Path) -> None:
    """Figures of one artifact beside promises of another would say that promises are broken."""
    copy = tmp_path / "copy"
    shutil.copytree(artifact, copy)
    manifest = open_artifact(copy)
    verify_unchanged(copy, manifest)
    change(copy, created="2001-01-01T00:00:00Z")
    with pytest.raises(SlmcError, match="meanwhile; run the command again"):
        verify_unchanged(copy, manifest)
