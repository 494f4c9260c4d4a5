"""Checks of output paths. slmc never replaces or removes what it did not write, with or without --force."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from exporters.artifact.errors import SlmcError
from exporters.artifact.manifest import MANIFEST_NAME, read_manifest
from targets.device.verify import SIGNATURE_NAME, SUMS_NAME, verify_files

NAMED = 3
"""How many foreign files an error names."""

_HEAD_BYTES: Final = 65536


@dataclass(frozen=True)
class FileKind:
    """A kind of file that slmc writes, and the texts that mark it; no marks if any text file may be one."""

    name: str
    marks: tuple[str, ...]


PLAN = FileKind("a plan of slmc", ('"plan_version"', '"model_sha256"', '"calibration_sha256"'))
TARGET = FileKind("a target file of slmc", ("isa = ", "architecture = ", "model = "))
BASELINE = FileKind("a baseline of slmc", ('"figures"', '"producer"', '"slmc"'))
JUNIT = FileKind("a JUnit file of slmc", ("<testsuites", 'classname="slmc.gate.'))
CHART = FileKind("a chart file of slmc", ('"name"', '"unit"', '"value"'))
HEAT_MAP = FileKind("a heat map of slmc", ("<!doctype html>", '<meta name="generator" content="slmc">'))
REPORTS = {
    "md": FileKind("a report of slmc", ("# ", "## Figures", "## Formats by block")),
    "html": FileKind("a report of slmc", ("<!DOCTYPE html>", '<p class="kicker">slmc report</p>')),
    "json": FileKind("a report of slmc", ('"manifest"', '"schema_version"', '"producer"', '"slmc"')),
}
TEXT = FileKind("a text", ())
FILE_KINDS = (PLAN, TARGET, BASELINE, JUNIT, CHART, HEAT_MAP, *REPORTS.values(), TEXT)


def check_output(output: Path, *, force: bool) -> None:
    """Check an artifact's folder before any work starts.

    Raises:
        SlmcError: the folder exists and --force is not given, it holds files that slmc did not write, or its parent
            cannot be written.
    """
    _check_place(output, force=force)
    if output.is_symlink():
        raise SlmcError(f"{output}: a link, which slmc does not replace; give the folder that it points to")
    if output.exists() and not output.is_dir():
        raise SlmcError(f"{output}: a file, but an artifact is a folder; choose another output")
    if output.is_dir():
        _check_own_artifact(output)


def _check_own_artifact(output: Path) -> None:
    """Refuse a folder that is not exactly an artifact as slmc wrote it."""
    if not any(output.iterdir()):
        return
    try:
        manifest = read_manifest(output)
    except SlmcError as error:
        raise SlmcError(
            f"{output}: a folder, but not an artifact of this slmc ({error}), so it is not replaced; choose another "
            "output or move it away"
        ) from error
    own = [MANIFEST_NAME, SUMS_NAME, SIGNATURE_NAME, *manifest.files]
    refuse_foreign(output, [name for name in own if not (output / name).is_symlink()])
    present = {name: entry for name, entry in manifest.files.items() if (output / name).exists()}
    try:
        verify_files(output, present)
    except SlmcError as error:
        raise SlmcError(
            f"{output}: changed since slmc wrote it ({error}), so it is not replaced; choose another output or move it "
            "away"
        ) from error


def refuse_foreign(folder: Path, own: Iterable[str]) -> None:
    """Raise SlmcError if a folder holds files with other names than these; the error names the first few."""
    allowed = set(own)
    allowed |= {str(parent) for name in allowed for parent in Path(name).parents}
    foreign = sorted(name for name in _entries(folder) if name not in allowed)
    if foreign:
        more = f" and {len(foreign) - NAMED} more" if len(foreign) > NAMED else ""
        raise SlmcError(
            f"{folder}: holds files that slmc did not write ({', '.join(map(repr, foreign[:NAMED]))}{more}), so "
            "nothing is removed; move them away or choose another output"
        )


def remove_artifact(folder: Path) -> None:
    """Remove the files that an artifact's manifest lists, the manifest last, and the folders that are then empty."""
    own = [*read_manifest(folder).files, SIGNATURE_NAME, SUMS_NAME, MANIFEST_NAME]
    remove_files(folder, own)


def remove_files(folder: Path, names: Iterable[str]) -> None:
    """Remove files by their relative names, in this order, and the folders that are then empty."""
    listed = [folder / name for name in names]
    for path in listed:
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
    held = {place for path in listed for place in (path, *path.parents) if place.is_relative_to(folder)}
    for empty in sorted({folder, *held}, key=lambda p: len(p.parts), reverse=True):
        with contextlib.suppress(OSError):  # something foreign is in it, or it is gone
            empty.rmdir()


def _entries(folder: Path) -> Iterator[str]:
    """Relative names of all files, links and folders below a folder; links are not followed."""
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            yield str((Path(root) / name).relative_to(folder))


def check_output_file(output: Path, kind: FileKind, *, force: bool) -> None:
    """Check an output file before any work starts.

    Raises:
        SlmcError: the file exists and --force is not given, it is of another kind or a link, or its folder cannot be
            written.
    """
    _check_place(output, force=force or output.is_dir())
    if output.is_dir():
        raise SlmcError(f"{output}: a folder; give the name of a file to write")
    if output.is_symlink():
        raise SlmcError(f"{output}: a link, which slmc does not replace; give the file that it points to")
    if output.exists() and kind.marks and not _is_of(output, kind):
        raise SlmcError(f"{output}: not {kind.name}, so it is not replaced; choose another output or move it away")


def _is_of(output: Path, kind: FileKind) -> bool:
    """Whether a file is of a kind that slmc writes. An empty file passes, because nothing is lost."""
    if not output.is_file():
        return False
    with output.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        file.seek(max(0, output.stat().st_size - _HEAD_BYTES))
        text = (head + file.read()).decode("utf-8", "replace")
    return not head or all(mark in text for mark in kind.marks)


def claim_folder(folder: Path, mark: str, names: Iterable[str], what: str) -> None:
    """Create a folder and mark it as slmc's, or check that an existing one is marked.

    Args:
        names: files that will be written there.

    Raises:
        SlmcError: it is not a folder, it holds files but no mark, or one of the names is not a regular file.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise SlmcError(f"{folder}: not a folder; give a folder for {what}")
    if folder.is_dir() and any(folder.iterdir()) and not is_plain(folder / mark):
        raise SlmcError(
            f"{folder}: slmc did not create this folder for {what}, so nothing in it is replaced; choose another output"
        )
    for name in names:
        if os.path.lexists(folder / name) and not is_plain(folder / name):
            raise SlmcError(f"{folder / name}: not a regular file, so it is not replaced; move it away")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / mark).touch()


def is_plain(path: Path) -> bool:
    """Whether the path is a regular file and not a link to one."""
    return not path.is_symlink() and path.is_file()


def put_aside(output: Path) -> None:
    """Rename an existing file to FILE.old-1, or to the next such name that is free."""
    if not output.exists():
        return
    number = 1
    while os.path.lexists(aside := output.with_name(f"{output.name}.old-{number}")):
        number += 1
    output.rename(aside)


def _check_place(output: Path, *, force: bool) -> None:
    if output.name in ("", ".."):
        raise SlmcError(f"{output}: not the name of a new file; give a name")
    if os.path.lexists(output) and not force:
        raise SlmcError(f"{output}: already exists; replace it with --force, or choose another output")
    standing = next(folder for folder in output.absolute().parents if folder.exists())
    probe = standing / f".slmc-{uuid.uuid4().hex}"
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise SlmcError(f"{output}: {standing} cannot be written ({error.strerror}); choose another output") from error
