"""Everything about an artifact that is a file: put together in a staging folder, then moved into place at once."""

from __future__ import annotations

import datetime
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from exporters.errors import SlmcError
from exporters.manifest import MANIFEST_NAME, FileEntry
from exporters.opening import read_json
from targets.native import LIBRARY_NAME
from targets.verify import SUMS_NAME, file_sha256

REPORT_NAME = "report.json"
_RUNNER = Path(__file__).parent / "run_artifact.py"


def check_output(output: Path, *, force: bool) -> None:
    """Refuse, before any work, an artifact's folder that could not be written or whose contents would be lost.

    Raises:
        SlmcError: it exists and --force is not given, it is no artifact, or its folder cannot be written.
    """
    _check_place(output, force=force)
    if output.is_symlink():
        raise SlmcError(f"{output}: a link; it will not be replaced, give the folder that it points to")
    if output.exists() and not output.is_dir():
        raise SlmcError(
            f"{output}: a file, and an artifact is a folder; it will not be replaced, choose another output"
        )
    if output.is_dir() and not (output / MANIFEST_NAME).is_file() and any(output.iterdir()):
        raise SlmcError(f"{output}: a folder that is no artifact; it will not be replaced, choose another output")


def check_output_file(output: Path, *, force: bool) -> None:
    """The same for a file.

    Raises:
        SlmcError: it exists and --force is not given, it is a folder, or its folder cannot be written.
    """
    _check_place(output, force=force or output.is_dir())
    if output.is_dir():
        raise SlmcError(f"{output}: a folder; give the name of a file to write")


def _check_place(output: Path, *, force: bool) -> None:
    if output.name in ("", ".."):
        raise SlmcError(f"{output}: a place that exists already, not the name of something new; give a name")
    if (output.exists() or output.is_symlink()) and not force:
        raise SlmcError(f"{output}: exists already; give --force to replace it, or choose another output")
    standing = next(folder for folder in output.absolute().parents if folder.exists())
    probe = standing / f".slmc-{uuid.uuid4().hex}"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise SlmcError(f"{output}: {standing} cannot be written ({error.strerror}); choose another output") from error


def add_companions(staging: Path, tokenizer: Path, libraries: Mapping[str, Path]) -> None:
    """The tokenizer, run.py, and the compiled operators by platform."""
    shutil.copyfile(tokenizer, staging / "tokenizer.json")
    shutil.copyfile(_RUNNER, staging / "run.py")
    for platform, library in libraries.items():
        native = staging / "native" / platform
        native.mkdir(parents=True)
        shutil.copyfile(library, native / LIBRARY_NAME)


def write_sums(staging: Path) -> dict[str, FileEntry]:
    """SHA256SUMS over every file (as `sha256sum -c` reads it), and the same as manifest entries without the manifest.

    The manifest lists every file but itself and SHA256SUMS; SHA256SUMS lists every file but itself.
    """
    names = sorted(str(p.relative_to(staging)) for p in staging.rglob("*") if p.is_file() and p.name != SUMS_NAME)
    entries = {name: FileEntry((staging / name).stat().st_size, file_sha256(staging / name)) for name in names}
    lines = "".join(f"{entry.sha256}  {name}\n" for name, entry in entries.items())
    (staging / SUMS_NAME).write_text(lines, encoding="utf-8")
    return {name: entry for name, entry in entries.items() if name != MANIFEST_NAME}


def read_report(artifact: Path) -> object:
    """The JSON of an artifact's report.

    Raises:
        SlmcError: there is none, or it is not JSON.
    """
    return read_json(artifact / REPORT_NAME, "copy the artifact again")


def publish(staging: Path, output: Path, *, force: bool) -> None:
    """Move a finished folder into place; what stood there waits beside the staging folder until the new one stands."""
    check_output(output, force=force)
    for path in staging.rglob("*"):
        if path.is_file():
            _flush(path)
    old = staging.with_name("replaced")
    if output.exists():
        if old.exists():
            shutil.rmtree(old)
        output.rename(old)
    staging.rename(output)
    if old.exists():
        shutil.rmtree(old)


def _flush(path: Path) -> None:
    """Have a file's contents on the disk, so that a power cut after the renaming finds them there."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def now() -> str:
    """The present moment in UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
