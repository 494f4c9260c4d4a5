"""Graphs whose function bodies share a name, as they were written before every body had its own.

ONNX Runtime below 1.27 takes one body for all of them, without an error: such a graph then computes something else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from exporters.artifact.errors import NotAvailable

FIRST_RIGHT: Final = (1, 27)
"""The first ONNX Runtime that tells bodies of one name apart."""

_FUNCTIONS, _NAME, _OVERLOAD = 25, 1, 13
"""Fields of ModelProto and FunctionProto (onnx.proto)."""


def refuse_shared_names(graph: Path, runtime: str) -> None:
    """Raise if a runtime of this version would take the wrong body for a node of an ONNX model.

    Raises:
        NotAvailable: it would; the text says which runtime is needed.
    """
    if runtime_version(runtime) >= FIRST_RIGHT:
        return
    overloads: dict[bytes, set[bytes]] = {}
    for number, function in _fields(graph.read_bytes()):
        if number == _FUNCTIONS:
            fields = dict(_fields(function))
            overloads.setdefault(fields.get(_NAME, b""), set()).add(fields.get(_OVERLOAD, b""))
    several = sorted(name for name, found in overloads.items() if len(found) > 1)
    if several:
        operator = several[0].decode("utf-8", "replace")
        raise NotAvailable(
            f"{graph}: {len(overloads[several[0]])} bodies are named {operator}, and ONNX Runtime {runtime} takes one "
            "for all; use onnxruntime 1.27 or later, or the compiled operators, or build the artifact again"
        )


def runtime_version(text: str) -> tuple[int, int]:
    """(1, 27) of '1.27.0'; (0, 0) of what is no version."""
    found = re.match(r"(\d{1,6})\.(\d{1,6})", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """(number, bytes) of every field of a protobuf message that has a length; ends where the message is damaged."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 0:
            _, at = _varint(message, at)
        elif kind == 2:
            size, at = _varint(message, at)
            yield tag >> 3, message[at : at + size]
            at += size
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            return


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """The number at a position, and the position after it."""
    value = shift = 0
    while at < len(message) and shift < 64:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            break
    return value, at
