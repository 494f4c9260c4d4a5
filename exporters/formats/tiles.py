"""Tiles of rows: what kernels read as one stream, because units of several rows lie side by side.

Dense integer tensors in tiles of 16 (`tiled_tensors`): word after word of 4 bytes, each of all 16 rows, so that every
lane of a vector belongs to a row; scales and zeros likewise, group after group. Rows behind the last whole tile follow
one after another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from exporters.formats.base import Array

Element = TypeVar("Element", bound=np.generic)

TILE_ROWS = 16
WORD_BYTES = 4


def fills_words(group: int, bits: int) -> bool:
    """Whether a group's codes fill whole words of every packed tensor."""
    return group % 32 == 0 or (group == 16 and bits in (2, 4, 8))


def tile_of(rows: int, group: int, bits: int) -> int:
    """Rows of a tile for an integer matrix: 16, or 0 where it lies row by row."""
    return TILE_ROWS if rows >= TILE_ROWS and fills_words(group, bits) else 0


def interleaved(tensor: NDArray[Element], unit: int, tile: int) -> NDArray[Element]:
    """Rows [rows, units * unit] in the order of tiles: unit by unit, row by row; the rest of the rows as they are."""
    whole = len(tensor) // tile * tile
    tiles = tensor[:whole].reshape(whole // tile, tile, tensor.shape[1] // unit, unit).swapaxes(1, 2)
    return np.concatenate([tiles.reshape(whole, tensor.shape[1]), tensor[whole:]])


def separated(tensor: NDArray[Element], unit: int, tile: int) -> NDArray[Element]:
    """The rows that `interleaved` put in order."""
    whole = len(tensor) // tile * tile
    tiles = tensor[:whole].reshape(whole // tile, tensor.shape[1] // unit, tile, unit).swapaxes(1, 2)
    return np.concatenate([tiles.reshape(whole, tensor.shape[1]), tensor[whole:]])


def tiled_tensors(packed: Mapping[str, Array]) -> dict[str, Array]:
    """Packed tensors of an integer format, row by row, in tiles of 16; shapes and bytes stay."""
    return {
        name: interleaved(tensor.reshape(len(tensor), -1), _unit(tensor), TILE_ROWS).reshape(tensor.shape)
        for name, tensor in packed.items()
    }


def row_tensors(packed: Mapping[str, Array]) -> dict[str, Array]:
    """The packed tensors that `tiled_tensors` put in order."""
    return {
        name: separated(tensor.reshape(len(tensor), -1), _unit(tensor), TILE_ROWS).reshape(tensor.shape)
        for name, tensor in packed.items()
    }


def _unit(tensor: Array) -> int:
    """Elements that stay together: a word of codes [rows, groups, bytes], one scale or zero [rows, groups]."""
    return WORD_BYTES if tensor.ndim == 3 else 1
