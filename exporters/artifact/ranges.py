"""The range of every number and count of a manifest that memory or time is taken for."""

from __future__ import annotations

import math
import typing

import numpy as np

from exporters.artifact.errors import SlmcError

if typing.TYPE_CHECKING:
    from exporters.artifact.manifest import Io, Manifest, State

MOST_LAYERS, MOST_FILES, MOST_STATES, MOST_CLASSES = 20_000, 1_000, 10_000, 100_000
MOST_CONTEXT = 2**31
MOST_BODIES = 1024
"""Names of one operator that its library can register; a session takes about 20 KB for each."""
MOST_TOKENS = 2**31
STATE_BYTES = 2**36
"""The most bytes that the states may take together."""

_ELEMENT_BYTES: typing.Final = {
    "float32": 4, "float64": 8, "float16": 2, "int64": 8, "int32": 4, "int8": 1, "uint8": 1, "bool": 1,
}  # fmt: skip


def check_ranges(manifest: Manifest, where: str) -> None:
    """Raise SlmcError for the first number that is out of range; the text names it, and what is allowed."""
    counts = (("recipe", len(manifest.recipe), MOST_LAYERS), ("files", len(manifest.files), MOST_FILES),
              ("io.states", len(manifest.io.states), MOST_STATES))  # fmt: skip
    for name, found, most in counts:
        if found > most:
            raise SlmcError(f"{where}.{name}: {found} entries, at most {most} are allowed; copy the artifact again")
    _check_io(manifest.io, where)
    for token in () if manifest.text is None else (*manifest.text.begin, *manifest.text.end, manifest.text.start):
        _within(f"{where}.text: a token", token, 0, MOST_TOKENS)
    sizes = {f"recipe.{path}.bytes": entry.bytes for path, entry in manifest.recipe.items()}
    sizes |= {f"files.{name}.bytes": entry.bytes for name, entry in manifest.files.items()}
    for name, size in sizes.items():
        _within(f"{where}.{name}", size, 0, 2**62)


def _check_io(io: Io, where: str) -> None:
    if io.context is not None:
        _within(f"{where}.io.context", io.context, 1, MOST_CONTEXT)
    if io.bodies is not None:
        _within(f"{where}.io.bodies", io.bodies, 1, MOST_BODIES)
    _within(f"{where}.io.fused", io.fused, 0, MOST_BODIES)
    if io.classes is not None:
        _within(f"{where}.io.classes.vocabulary", io.classes.vocabulary, 1, 2**31)
        _within(f"{where}.io.classes.labels: their number", len(io.classes.labels), 1, MOST_CLASSES)
    total = 0
    for i, state in enumerate(io.states):
        total += _state_bytes(state, f"{where}.io.states[{i}]")
    _within(f"{where}.io.states: their bytes", total, 0, STATE_BYTES)


def _state_bytes(state: State, where: str) -> int:
    if state.dtype not in _ELEMENT_BYTES:
        raise SlmcError(f"{where}.dtype is {state.dtype[:40]!r}; allowed are {', '.join(_ELEMENT_BYTES)}")
    if len(state.shape) > 8:
        raise SlmcError(f"{where}.shape has {len(state.shape)} dimensions; at most 8 are allowed")
    for dim in state.shape:
        _within(f"{where}.shape", dim, 1, STATE_BYTES)
    if state.dtype.startswith(("int", "uint")):
        limits = np.iinfo(state.dtype)
        _within(f"{where}.fill", state.fill, limits.min, limits.max)
    return math.prod(state.shape) * _ELEMENT_BYTES[state.dtype]


def _within(what: str, found: float, least: int, most: int) -> None:
    if not least <= found <= most:
        raise SlmcError(f"{what} is {found}; allowed is {least} to {most}; copy the artifact again")
