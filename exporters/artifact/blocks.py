"""Data files that repeat one block: what a probe reads from memory is made where it is read, of little that is sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class BlockTensor:
    """Bytes of a block that are rotated a little more in every repetition, so that no two hold the same matrix.

    offset_bytes, nbytes: where they lie in the block. segment_bytes, step_bytes: in repetition n every segment is
    rotated by n steps; whole rows of a matrix, or elements within its rows.
    """

    offset_bytes: int
    nbytes: int
    segment_bytes: int
    step_bytes: int


def expand(block: Path, tensors: Sequence[BlockTensor], repeats: int, data: Path) -> None:
    """Write the data file: so many repetitions of the block, one after the other.

    Raises:
        OSError: the block cannot be read, or there is no room for the file.
    """
    whole = np.fromfile(block, np.uint8)
    with data.open("wb") as out:
        for number in range(repeats):
            moved = whole.copy() if number else whole
            for tensor in tensors if number else ():
                part = whole[tensor.offset_bytes : tensor.offset_bytes + tensor.nbytes].reshape(
                    -1, tensor.segment_bytes
                )
                rolled = np.roll(part, number * tensor.step_bytes % tensor.segment_bytes, axis=1)
                moved[tensor.offset_bytes : tensor.offset_bytes + tensor.nbytes] = rolled.reshape(-1)
            out.write(moved.data)
