"""Everything about an artifact that is a file: put together in a staging folder, then moved into place at once."""

from __future__ import annotations

import ast
import datetime
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType

from exporters.artifact.errors import SlmcError
from exporters.artifact.manifest import MANIFEST_NAME, FileEntry
from exporters.artifact.opening import read_json
from exporters.artifact.runtimes import SLMC_RUN
from targets.device import continuation
from targets.device.native import LIBRARY_NAME
from targets.device.verify import SUMS_NAME, file_sha256
from toolchain.files.outputs import check_output, remove_artifact, remove_files
from toolchain.files.workspace import REPLACED
from toolchain.model.tokenizer import without_tokens

REPORT_NAME = "report.json"
_DEVICE = Path(continuation.__file__).parent
_RUNNER, _PART = "run_artifact.py", "continuation"


def add_companions(
    staging: Path, tokenizer: bytes, libraries: Mapping[str, Path], left_out: Collection[str] = (),
    programs: Mapping[str, Path] = MappingProxyType({}),
) -> None:  # fmt: skip
    """The tokenizer.json without tokens that are left out, run.py, by platform the compiled operators and slmc-run."""
    if left_out:
        tokenizer = without_tokens(tokenizer.decode("utf-8-sig"), left_out).encode()
    (staging / "tokenizer.json").write_bytes(tokenizer)
    (staging / "run.py").write_text(runner(), encoding="utf-8")
    for platform, library in libraries.items():
        native = staging / "native" / platform
        native.mkdir(parents=True)
        shutil.copyfile(library, native / LIBRARY_NAME)
    for platform, program in programs.items():
        native = staging / "native" / platform
        native.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(program, native / SLMC_RUN)
        (native / SLMC_RUN).chmod(0o755)


def runner() -> str:
    """run.py in one file: the program, with the module that it shares with slmc in the place of its import."""
    program = (_DEVICE / _RUNNER).read_text(encoding="utf-8")
    part = (_DEVICE / f"{_PART}.py").read_text(encoding="utf-8")
    statement = _import_of(program, f"targets.device.{_PART}")
    lines, future = program.splitlines(), _import_of(part, "__future__")
    lines[statement.lineno - 1 : statement.end_lineno] = part.splitlines()[future.end_lineno :]
    return "\n".join(lines) + "\n"


def _import_of(source: str, module: str) -> ast.ImportFrom:
    imports = (node for node in ast.parse(source).body if isinstance(node, ast.ImportFrom))
    return next(node for node in imports if node.module == module)


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
    """Move a finished folder into place. The old one is kept next to the staging folder until the new one is there.

    Raises:
        SlmcError: the output, or what still waits there, holds what slmc did not write.
    """
    check_output(output, force=force)
    for path in staging.rglob("*"):
        if path.is_file():
            _flush(path)
    old = staging.with_name(REPLACED)
    if output.exists():
        _clear(old)
        output.rename(old)
    staging.rename(output)
    _clear(old, gone=False)


def _clear(old: Path, *, gone: bool = True) -> None:
    """Remove an artifact that was replaced; gone: its place is needed."""
    if old.is_dir():
        remove_artifact(old) if (old / MANIFEST_NAME).is_file() else remove_files(old, ())
    if gone and old.exists():
        raise SlmcError(f"{old}: holds what slmc did not write; move that away, then repeat with --resume")


def _flush(path: Path) -> None:
    """Have a file's contents on the disk, so that a power cut after the renaming finds them there."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def now() -> str:
    """The present moment in UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
