"""The work folder next to the output: a build keeps intermediate results there until the artifact is complete."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from exporters.artifact.errors import NotAvailable, SlmcError
from exporters.artifact.manifest import MANIFEST_NAME
from targets.device.verify import SIGNATURE_NAME, SUMS_NAME
from toolchain.files.outputs import is_plain, refuse_foreign, remove_files

_INPUTS = "inputs.json"

BEST_PLAN = "best-plan.json"
"""In the work folder: the plan of the best candidate so far, written anew whenever a better one is found."""

MARK, MARK_TEXT = ".slmc-work", "This folder was made by slmc and is removed by it.\n"
"""A file in every work folder: a folder without it is somebody else's."""

WRITTEN = (
    MARK, "lock", _INPUTS, BEST_PLAN, ".*.partial",
    "statistics.safetensors", "statistics.partial", "statistics.*.partial",
    "journal.jsonl", "probe.jsonl", "measured.jsonl", "tuning.pt", "tuning.partial",
    "layers/*--*--*.npz", "layers/*--*--*.partial", "layers/.*.partial",
)  # fmt: skip
"""Patterns of all files that a build writes into its work folder, except those of the unfinished artifact."""

ARTIFACT = (
    "model.onnx", "model.onnx.data", "tokenizer.json", "run.py", "native/*/libslmc_ops.so", "native/*/slmc-run",
    "plan.json", "config.resolved.yaml", "report.html", "report.json", MANIFEST_NAME, SUMS_NAME, SIGNATURE_NAME,
)  # fmt: skip
"""Patterns of the files of an artifact."""

_FOLDERS = ("layers", *(f"{name}{at}" for name in ("artifact", "replaced") for at in ("", "/native", "/native/*")))

STAGING, REPLACED = "artifact", "replaced"
_FULL = (errno.ENOSPC, errno.EDQUOT)


def digest_of(inputs: Mapping[str, Any]) -> str:
    """A digest of everything that a build's result depends on."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


@contextmanager
def workspace(output: Path, inputs: Mapping[str, Any], *, resume: bool) -> Iterator[Path]:
    """The work folder of one output, locked. Kept when the build is interrupted, removed when it succeeds.

    A KeyboardInterrupt is raised again with a text that says how to resume.

    Raises:
        SlmcError: another build holds it, it cannot be written, or --resume finds other inputs.
        NotAvailable: the disk is full.
    """
    folder = output.with_name(f"{output.name}.slmc-work")
    try:
        lock = _own(folder)
    except OSError as error:
        raise SlmcError(f"{output}: its folder cannot be written ({error.strerror}); choose another output") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SlmcError(
                f"{folder}: another build is at work there; wait for it or choose another output"
            ) from error
        if not _same_file(lock.fileno(), folder / "lock"):
            raise SlmcError(f"{folder}: another build has just ended there; repeat the command")
        refuse_foreign(folder, _own_names(folder))  # not before: another build comes and goes with its files
        try:
            _claim(folder, inputs, resume=resume)
            yield folder
            _clear(folder)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_how_to_go_on(folder)) from None
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise NotAvailable(
                f"{folder}: no space left on its disk; free some, then repeat the command with --resume"
            ) from error


def _own(folder: Path) -> BinaryIO:
    """The open lock of a work folder, which is made if there is none.

    Raises:
        SlmcError: what stands there is not ours, or holds what is not.
    """
    if folder.is_symlink():
        raise SlmcError(f"{folder}: a link, and a work folder is none; remove the link or choose another output")
    if os.path.lexists(folder):
        if not folder.is_dir():
            raise SlmcError(f"{folder}: a file in the place of the work folder; move it away or choose another output")
        if any(folder.iterdir()) and not _is_marked(folder):
            raise SlmcError(
                f"{folder}: a folder that slmc did not make; it is left as it is: move it away or choose another output"
            )
        if os.path.lexists(folder / "lock") and not is_plain(folder / "lock"):
            raise SlmcError(f"{folder / 'lock'}: slmc did not make it so; move it away or choose another output")
    folder.mkdir(parents=True, exist_ok=True)
    if not _is_marked(folder):
        (folder / MARK).write_text(MARK_TEXT, encoding="utf-8")
    return os.fdopen(os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644), "rb+")


def _is_marked(folder: Path) -> bool:
    mark = folder / MARK
    return is_plain(mark) and mark.stat().st_size <= len(MARK_TEXT)  # less: killed while it was written


def _own_names(folder: Path) -> list[str]:
    """Names of what slmc writes into a work folder, of all that is there; files are plain ones."""
    patterns = (*WRITTEN, *(f"{name}/{pattern}" for name in (STAGING, REPLACED) for pattern in ARTIFACT))
    files = {path for pattern in patterns for path in folder.glob(pattern) if is_plain(path)}
    folders = {path for pattern in _FOLDERS for path in folder.glob(pattern) if path.is_dir() and not path.is_symlink()}
    return sorted(str(path.relative_to(folder)) for path in files | folders)


def _clear(folder: Path, *, but: tuple[str, ...] = ()) -> None:
    """Remove what slmc wrote, the mark last, so that a kill leaves a folder that is still known as ours."""
    names = [name for name in _own_names(folder) if name not in but]
    remove_files(folder, sorted(names, key=lambda name: (name == MARK, name)))


def clear_staging(folder: Path) -> Path:
    """A free path inside the work folder for an artifact to be put together; leftovers of another are removed.

    Raises:
        SlmcError: something foreign is among them.
    """
    staging = folder / STAGING
    remove_files(folder, [name for name in _own_names(folder) if name.partition("/")[0] == STAGING])
    if staging.exists():
        raise SlmcError(f"{staging}: holds what slmc did not write; move that away, then repeat with --resume")
    return staging


def _same_file(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one at a path, and not one that has been removed."""
    return path.exists() and os.path.samestat(os.fstat(descriptor), path.stat())


def _how_to_go_on(folder: Path) -> str:
    best = folder / BEST_PLAN
    plan = f", the best plan so far is {best}" if best.is_file() else ""
    return f"{folder} keeps what was paid for{plan}; repeat the command with --resume to go on"


def _claim(folder: Path, inputs: Mapping[str, Any], *, resume: bool) -> None:
    """Start anew, or go on where a build with the same inputs stopped."""
    record = folder / _INPUTS
    try:
        before = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or of no use
        before = None
    if resume and before is not None and before != dict(inputs):
        changed = sorted(k for k in {*before, *inputs} if before.get(k) != inputs.get(k))
        raise SlmcError(
            f"{folder}: the interrupted build had other inputs ({', '.join(changed)} changed); "
            "repeat its options, or leave --resume away to start anew"
        )
    if not resume or before is None:
        _clear(folder, but=(MARK, "lock"))
        write_whole(record, json.dumps(dict(inputs), indent=1) + "\n")


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write bytes to; at the end of the body it is at `path`, complete. After an error nothing is."""
    partial = path.with_name(f".{path.name[:200]}.{uuid.uuid4().hex}.partial")  # a name that nobody else uses
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file, text in UTF-8, so that it is there complete or not at all."""
    with whole_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)
