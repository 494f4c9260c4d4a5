"""Places that commands write to: nothing that slmc did not write is ever replaced or removed, --force or not."""

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
"""Foreign files that a refusal names."""

_HEAD_BYTES: Final = 65536


@dataclass(frozen=True)
class FileKind:
    """Files of a kind that slmc writes, and the texts that each of them holds; none where nothing tells them apart."""

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
    """Refuse, before any work, an artifact's folder that could not be written or whose contents would be lost.

    Raises:
        SlmcError: it exists and --force is not given, holds what slmc did not write, or its folder cannot be written.
    """
    _check_place(output, force=force)
    if output.is_symlink():
        raise SlmcError(f"{output}: a link; it will not be replaced, give the folder that it points to")
    if output.exists() and not output.is_dir():
        raise SlmcError(
            f"{output}: a file, and an artifact is a folder; it will not be replaced, choose another output"
        )
    if output.is_dir():
        _check_own_artifact(output)


def _check_own_artifact(output: Path) -> None:
    """Refuse a folder that holds anything but an artifact as slmc wrote it."""
    if not any(output.iterdir()):
        return
    try:
        manifest = read_manifest(output)
    except SlmcError as error:
        raise SlmcError(
            f"{output}: a folder that is no artifact of this slmc ({error}); it will not be replaced, choose another "
            "output or move it away"
        ) from error
    own = [MANIFEST_NAME, SUMS_NAME, SIGNATURE_NAME, *manifest.files]
    refuse_foreign(output, [name for name in own if not (output / name).is_symlink()])
    present = {name: entry for name, entry in manifest.files.items() if (output / name).exists()}
    try:
        verify_files(output, present)
    except SlmcError as error:
        raise SlmcError(
            f"{output}: not as slmc wrote it ({error}); it will not be replaced, choose another output or move it away"
        ) from error


def refuse_foreign(folder: Path, own: Iterable[str]) -> None:
    """Raise SlmcError if a folder holds files besides those of these names; the first few are named."""
    allowed = set(own)
    allowed |= {str(parent) for name in allowed for parent in Path(name).parents}
    foreign = sorted(name for name in _entries(folder) if name not in allowed)
    if foreign:
        more = f" and {len(foreign) - NAMED} more" if len(foreign) > NAMED else ""
        raise SlmcError(
            f"{folder}: holds what slmc did not write ({', '.join(map(repr, foreign[:NAMED]))}{more}); nothing is "
            "removed: move that away or choose another output"
        )


def remove_artifact(folder: Path) -> None:
    """Remove the files that an artifact's manifest lists, it itself last, and the folders that are empty then."""
    own = [*read_manifest(folder).files, SIGNATURE_NAME, SUMS_NAME, MANIFEST_NAME]
    remove_files(folder, own)


def remove_files(folder: Path, names: Iterable[str]) -> None:
    """Remove files by their relative names, in this order, and the folders among them or above them that are empty."""
    listed = [folder / name for name in names]
    for path in listed:
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
    held = {place for path in listed for place in (path, *path.parents) if place.is_relative_to(folder)}
    for empty in sorted({folder, *held}, key=lambda p: len(p.parts), reverse=True):
        with contextlib.suppress(OSError):  # something foreign is in it, or it is gone
            empty.rmdir()


def _entries(folder: Path) -> Iterator[str]:
    """Every file, link and folder below a folder by its relative name; links are not followed."""
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            yield str((Path(root) / name).relative_to(folder))


def check_output_file(output: Path, kind: FileKind, *, force: bool) -> None:
    """Refuse, before any work, a file that could not be written or that would be lost.

    Raises:
        SlmcError: it exists and --force is not given, it is not of this kind, a link, or its folder cannot be written.
    """
    _check_place(output, force=force or output.is_dir())
    if output.is_dir():
        raise SlmcError(f"{output}: a folder; give the name of a file to write")
    if output.is_symlink():
        raise SlmcError(f"{output}: a link; it will not be replaced, give the file that it points to")
    if output.exists() and kind.marks and not _is_of(output, kind):
        raise SlmcError(f"{output}: not {kind.name}; it will not be replaced, choose another output or move it away")


def _is_of(output: Path, kind: FileKind) -> bool:
    """Whether a file is of a kind that slmc writes. An empty one is anybody's, with nothing to lose."""
    if not output.is_file():
        return False
    with output.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        file.seek(max(0, output.stat().st_size - _HEAD_BYTES))
        text = (head + file.read()).decode("utf-8", "replace")
    return not head or all(mark in text for mark in kind.marks)


def claim_folder(folder: Path, mark: str, names: Iterable[str], what: str) -> None:
    """Make a folder, marked as one that slmc writes into, or check that one is.

    Args:
        names: of files that will be written there.

    Raises:
        SlmcError: it is no folder, holds files but not the mark, or one of the names is no plain file.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise SlmcError(f"{folder}: no folder; give a folder for {what}")
    if folder.is_dir() and any(folder.iterdir()) and not is_plain(folder / mark):
        raise SlmcError(
            f"{folder}: a folder that was not made for {what}; nothing in it is replaced: choose another output"
        )
    for name in names:
        if os.path.lexists(folder / name) and not is_plain(folder / name):
            raise SlmcError(f"{folder / name}: no plain file; it will not be replaced, move it away")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / mark).touch()


def is_plain(path: Path) -> bool:
    """Whether a regular file, and no link to one, stands there."""
    return not path.is_symlink() and path.is_file()


def put_aside(output: Path) -> None:
    """Rename a file that may be anybody's to FILE.old-1, or the next such name that is free."""
    if not output.exists():
        return
    number = 1
    while os.path.lexists(aside := output.with_name(f"{output.name}.old-{number}")):
        number += 1
    output.rename(aside)


def _check_place(output: Path, *, force: bool) -> None:
    if output.name in ("", ".."):
        raise SlmcError(f"{output}: a place that exists already, not the name of something new; give a name")
    if os.path.lexists(output) and not force:
        raise SlmcError(f"{output}: exists already; give --force to replace it, or choose another output")
    standing = next(folder for folder in output.absolute().parents if folder.exists())
    probe = standing / f".slmc-{uuid.uuid4().hex}"
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise SlmcError(f"{output}: {standing} cannot be written ({error.strerror}); choose another output") from error
