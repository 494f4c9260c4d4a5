"""A safetensors file of float32 tensors that grow in place, for sums that are larger together than memory."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from toolchain.model.checkpoint import StoredTensor

ALIGNMENT = 64
"""Tensors start at multiples of this, as torch's own memory does: products round alike then."""


class GrowingFile:
    """The file from its first zeros on, in the layout of safetensors, so that any reader opens it when it is done."""

    def __init__(self, path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Make room for zeros of these shapes.

        Raises:
            OSError: the disk has no room.
        """
        self._path, self._shapes, self._starts = path, dict(shapes), {}
        header, end = {}, 0
        for name, shape in shapes.items():
            start, end = end, end + 4 * math.prod(shape)
            header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
            self._starts[name] = start
        text = json.dumps(header).encode()
        text += b" " * (-(len(text) + 8) % ALIGNMENT)
        self._first = len(text) + 8
        with path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.flush()
            if end:
                os.posix_fallocate(file.fileno(), self._first, end)  # a full disk is an error here, and a signal later

    @contextmanager
    def opened(self, name: str) -> Iterator[Tensor]:
        """One tensor, to be changed in place; its pages are let go at the end."""
        shape = self._shapes[name]
        at = self._first + self._starts[name]
        array = np.memmap(self._path, np.float32, "r+", at, shape)
        yield torch.from_numpy(array)
        del array

    def finish(self, path: Path) -> None:
        """Put the file, as it is now, in its place."""
        with self._path.open("rb") as file:
            os.fsync(file.fileno())
        self._path.replace(path)


class StoredTensors(Mapping[str, Tensor]):
    """The tensors of a safetensors file whose names begin with a prefix, each read when it is asked for."""

    def __init__(self, file: Path, prefix: str) -> None:
        self._file, self._prefix = file, prefix
        with safe_open(file, framework="pt") as stored:
            self._names = [n.removeprefix(prefix) for n in stored.keys() if n.startswith(prefix)]  # noqa: SIM118

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        return StoredTensor(self._file, self._prefix + name)()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
