"""The one way to open what users name: a regular file of bounded size, and documents of bounded depth and numbers.

Kinds and sizes are looked at before anything is read, so that a FIFO never hangs and a device never fills the memory.
"""

from __future__ import annotations

import json
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

from exporters.artifact.errors import SlmcError

MIB: Final = 2**20
DOCUMENT_BYTES: Final = 64 * MIB
"""Largest JSON document or other text that is read whole: a plan of a model with thousands of layers has a few MiB."""

DOCUMENT_DEPTH: Final = 32
"""Levels of lists and objects inside each other; no document of ours or of a published model has ten."""

DOCUMENT_VALUES: Final = 4_000_000
_SMALLEST_INT, _LARGEST_INT = -(2**63), 2**64 - 1
_KINDS: Final = (
    (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)  # fmt: skip


def file_size(path: Path, advice: str) -> int:
    """Bytes of a regular file (or of what a link points to), for libraries that open it themselves.

    Raises:
        SlmcError: there is none, it is something else, or it cannot be looked at; `advice` ends the text.
    """
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error, advice) from error
    return _size(path, found, advice)


def open_file(path: Path, advice: str) -> BufferedReader:
    """A regular file, opened for reading without waiting for anybody.

    Raises:
        SlmcError: as `file_size`, or it may not be read.
    """
    file_size(path, advice)  # opening a device may already do something
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _unreadable(path, error, advice) from error
    file = os.fdopen(descriptor, "rb")
    try:
        _size(path, os.fstat(descriptor), advice)
    except SlmcError:
        file.close()
        raise
    return file


def read_bytes(path: Path, advice: str, limit_bytes: int = DOCUMENT_BYTES) -> bytes:
    """The contents of a regular file of at most so many bytes.

    Raises:
        SlmcError: as `open_file`, or it is larger.
    """
    with open_file(path, advice) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            content = file.read(limit_bytes + 1) if size <= limit_bytes else b""
        except OSError as error:
            raise _unreadable(path, error, advice) from error
    if max(size, len(content)) > limit_bytes:
        raise SlmcError(f"{path}: {max(size, len(content))} bytes, at most {limit_bytes} are read here; {advice}")
    return content


def read_text(path: Path, advice: str, limit_bytes: int = DOCUMENT_BYTES) -> str:
    """The same as characters; a byte order mark is left away.

    Raises:
        SlmcError: as `read_bytes`, or it is not UTF-8.
    """
    try:
        return read_bytes(path, advice, limit_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SlmcError(f"{path}: not UTF-8 text (byte {error.start}); {advice}") from error


def read_json(path: Path, advice: str, limit_bytes: int = DOCUMENT_BYTES) -> Any:
    """A JSON document, bounded.

    Raises:
        SlmcError: as `read_text`, it is not JSON, or a number or the depth leaves the range.
    """
    text = read_text(path, advice, limit_bytes)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:  # also numbers and depths that Python refuses
        raise SlmcError(f"{path}: not JSON ({_brief(error)}); {advice}") from error
    return bounded(document, str(path), advice)


def bounded(document: Any, where: str, advice: str) -> Any:
    """The document itself, after a look at its depth, the count of its values, its integers and its texts.

    Raises:
        SlmcError: deeper than 32 levels, more than 4,000,000 values, an integer outside -2^63 to 2^64-1, or a text that
            is no Unicode (a lone surrogate).
    """
    level, depth, seen = [document], 0, 0
    while level:
        seen += len(level)
        if depth > DOCUMENT_DEPTH:
            raise SlmcError(f"{where}: more than {DOCUMENT_DEPTH} levels; {advice}")
        below: list[Any] = []
        for value in level:
            if seen + len(below) > DOCUMENT_VALUES:  # parts that are shared would grow without end
                raise SlmcError(f"{where}: more than {DOCUMENT_VALUES} values; {advice}")
            if isinstance(value, dict):
                below.extend(value.keys())
                below.extend(value.values())
            elif isinstance(value, (list, tuple)):
                below.extend(value)
            elif isinstance(value, int) and not _SMALLEST_INT <= value <= _LARGEST_INT:
                raise SlmcError(f"{where}: a number of {value.bit_length()} bits; at most 64 are allowed; {advice}")
            elif isinstance(value, str) and not value.isascii() and not is_unicode(value):
                raise SlmcError(f"{where}: {value[:40]!a} is no Unicode text (a lone surrogate); {advice}")
        level, depth = below, depth + 1
    return document


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold a text; JSON and command lines may carry lone surrogates, which it cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _size(path: Path, found: os.stat_result, advice: str) -> int:
    if not stat.S_ISREG(found.st_mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(found.st_mode)), "something else")
        raise SlmcError(f"{path}: {kind}, and a regular file is needed; {advice}")
    return found.st_size


def _unreadable(path: Path, error: Exception, advice: str) -> SlmcError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return SlmcError(f"{path}: cannot be read ({reason}); {advice}")


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
