"""Results of a search on disk: compressed layers and evaluations, each written completely or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from exporters.formats.base import Encoded
from exporters.formats.catalog import format_named
from toolchain.compress.recipe import LayerConfig, Recipe
from toolchain.files.journal import KeyedLines
from toolchain.files.workspace import whole_file
from toolchain.quality.reference import Score

KEEP_BYTES = 2**29
"""Compressed layers are kept in memory up to this size; the others are read from disk."""


class LayerStore:
    """Compressed layers by (path, choice), computed once."""

    def __init__(self, folder: Path, make: Callable[[str, LayerConfig], Encoded]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._make = folder, make
        self._memory: dict[tuple[str, str, str], Encoded] = {}
        self._held_bytes = 0

    def encoded(self, path: str, config: LayerConfig) -> Encoded:
        key = (path, config.format, config.method)  # activations change no weights
        if key in self._memory:
            return self._memory[key]
        file = self.file(path, config)
        encoded = _read(file, config.format) or self._write(file, self._make(path, config))
        if self._held_bytes + encoded.nbytes <= KEEP_BYTES:
            self._memory[key] = encoded
            self._held_bytes += encoded.nbytes
        return encoded

    def file(self, path: str, config: LayerConfig) -> Path:
        """Where a layer lies once it is compressed."""
        name = re.sub(r"[^A-Za-z0-9.-]", "_", f"{path}--{config.format}--{config.method}")
        return self.folder / f"{name}.npz"

    def _write(self, file: Path, encoded: Encoded) -> Encoded:
        with whole_file(file) as out:
            arrays: dict[str, Any] = {f"packed.{n}": p for n, p in encoded.packed.items()}
            np.savez(out, shape=np.array(encoded.shape), exponent=np.array(encoded.exponent), **arrays)
        return encoded


def _read(file: Path, fmt: str) -> Encoded | None:
    if not file.is_file():
        return None
    try:
        with np.load(file) as stored:
            packed = {n.removeprefix("packed."): stored[n] for n in stored.files if n.startswith("packed.")}
            rows, cols = (int(n) for n in stored["shape"])
            exponent = int(stored["exponent"])
    except (OSError, EOFError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile):
        return None
    wanted = {n: (p.shape, p.dtype) for n, p in format_named(fmt).layout_for(rows, cols).items()}
    whole = {n: (p.shape, p.dtype) for n, p in packed.items()} == wanted
    return Encoded(fmt, (rows, cols), packed, exponent) if whole else None


def recipe_key(recipe: Recipe) -> str:
    """A digest of a recipe, the same whatever the order of its layers."""
    text = json.dumps(sorted((path, c.format, c.method, c.activations) for path, c in recipe.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


class Journal:
    """Evaluations by recipe, appended as they are made; a damaged last line is ignored."""

    def __init__(self, file: Path) -> None:
        self._lines = KeyedLines(file, "score", lambda raw: Score(**raw), dataclasses.asdict)

    def __len__(self) -> int:
        return len(self._lines)

    def knows(self, recipe: Recipe) -> bool:
        return self._lines.get(recipe_key(recipe)) is not None

    def scored(self, recipe: Recipe, evaluate: Callable[[Recipe], Score]) -> Score:
        """The score of a recipe: remembered, or evaluated and written to disk before it is used."""
        key = recipe_key(recipe)
        known = self._lines.get(key)
        return self._lines.add(key, evaluate(recipe)) if known is None else known
