"""Values by key in a file of JSON lines. Each is appended as soon as it is known; a damaged line is ignored."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class KeyedLines(Generic[T]):
    """Values of one type, each a line {"key": ..., FIELD: ...}."""

    def __init__(self, file: Path, field: str, decode: Callable[[Any], T], encode: Callable[[T], Any]) -> None:
        """Read what is there.

        Args:
            decode: raises KeyError, TypeError or AttributeError for what `encode` has not written.
        """
        self._file, self._field, self._encode = file, field, encode
        self._known: dict[str, T] = {}
        if file.is_file():
            for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    entry = json.loads(line)
                    self._known[entry["key"]] = decode(entry[field])
                except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
                    continue

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> T | None:
        return self._known.get(key)

    def add(self, key: str, value: T) -> T:
        """Append a value; returns it after it is on disk."""
        line = json.dumps({"key": key, self._field: self._encode(value)})
        with self._file.open("a", encoding="utf-8") as out:
            out.write("\n" + line + "\n" if self._torn() else line + "\n")
            out.flush()
            os.fsync(out.fileno())
        self._known[key] = value
        return value

    def _torn(self) -> bool:
        """Whether the file ends in the middle of a line."""
        if not self._file.is_file() or self._file.stat().st_size == 0:
            return False
        with self._file.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
