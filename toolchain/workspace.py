"""The folder beside the output in which a build keeps what it has already paid for, until the artifact stands."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from exporters.errors import NotAvailable, SlmcError

_INPUTS = "inputs.json"

BEST_PLAN = "best-plan.json"
"""In the work folder: the plan of the best candidate so far, written anew whenever a better one is found."""

_FULL = (errno.ENOSPC, errno.EDQUOT)


def digest_of(inputs: Mapping[str, Any]) -> str:
    """A digest of everything that a build's result depends on."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


@contextmanager
def workspace(output: Path, inputs: Mapping[str, Any], *, resume: bool) -> Iterator[Path]:
    """The work folder of one output, locked. Kept when the build is interrupted, removed when it succeeds.

    A KeyboardInterrupt leaves with a text that says how to go on.

    Raises:
        SlmcError: another build holds it, it cannot be written, or --resume finds other inputs.
        NotAvailable: the disk is full.
    """
    folder = output.with_name(f"{output.name}.slmc-work")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
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
        try:
            _claim(folder, inputs, resume=resume)
            yield folder
            shutil.rmtree(folder)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_how_to_go_on(folder)) from None
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise NotAvailable(
                f"{folder}: no space left on its disk; free some, then repeat the command with --resume"
            ) from error


def _same_file(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one that stands at a path, and not one that has been removed."""
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
        for entry in folder.iterdir():
            if entry.name != "lock":
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        write_whole(record, json.dumps(dict(inputs), indent=1) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that it is there complete or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
