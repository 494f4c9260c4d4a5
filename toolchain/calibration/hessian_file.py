"""A safetensors file of float32 tensors that are changed in place. Together they may be larger than memory."""

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
"""Tensors start at multiples of this many bytes, like torch's own memory, so that products round in the same way."""


class GrowingFile:
    """A file of zeros in the layout of safetensors. Any reader can open it once it is finished."""

    def __init__(self, path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Create the file with zeros of these shapes.

        Raises:
            OSError: the disk is full.
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
                os.posix_fallocate(file.fileno(), self._first, end)  # a full disk is an error here, a signal later

    @contextmanager
    def opened(self, name: str) -> Iterator[Tensor]:
        """One tensor, for changes in place. Its pages are released at the end."""
        shape = self._shapes[name]
        at = self._first + self._starts[name]
        array = np.memmap(self._path, np.float32, "r+", at, shape)
        yield torch.from_numpy(array)
        del array

    def finish(self, path: Path) -> None:
        """Flush the file and rename it to `path`."""
        with self._path.open("rb") as file:
            os.fsync(file.fileno())
        self._path.replace(path)


class StoredTensors(Mapping[str, Tensor]):
    """The tensors of a safetensors file whose names begin with a prefix. Each is read on access."""

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
