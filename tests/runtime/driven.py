"""slmc-run-driver as a child process: any graph on any inputs, run by our own runtime."""

from __future__ import annotations

import shlex
import shutil
import struct
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from targets.remote.transport import EMULATORS

ROOT = Path(__file__).parents[2]
_LENGTH = struct.Struct("<q")


def built(name: str) -> Path | None:
    """A program that `pip install --editable .` has compiled; None without it."""
    return next(iter(sorted(ROOT.glob(f"build/py3*/{name}"))), None)


def program(name: str) -> Path:
    """The same; the test that asks is skipped without it."""
    found = built(name)
    if found is None:
        pytest.skip(f"{name} is not there; 'pip install --editable .' compiles it")
    return found


def command(name: str, emulator: str | None = None) -> list[str]:
    """What starts the program: this machine's, or the one that 'make runtime-cross' compiled, under an emulator.

    emulator: qemu-aarch64, qemu-arm or qemu-riscv64, with its options behind; the test that asks is skipped where it or
    the program is missing.
    """
    if emulator is None:
        return [str(program(name))]
    words = shlex.split(emulator)
    found = ROOT / "build" / "native" / EMULATORS[words[0]] / name
    if not found.is_file() or shutil.which(words[0]) is None:
        pytest.skip(f"no {found} ('make runtime-cross') or no {words[0]} (Debian: qemu-user)")
    return [*words, str(found)]


class Refused(Exception):
    """What the runtime said."""


class Driver:
    """Requests to one child, one after the other."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def run(self, model: bytes, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]) -> list[np.ndarray]:
        """The named outputs.

        Raises:
            Refused: the runtime refused the graph or the inputs.
        """
        parts = [_block(model), _LENGTH.pack(len(inputs))]
        for name, array in inputs.items():
            kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            sizes = struct.pack(f"<{array.ndim}q", *array.shape)
            parts += [
                _block(name.encode()),
                _LENGTH.pack(kind),
                _LENGTH.pack(array.ndim),
                sizes,
                _block(array.tobytes()),
            ]
        parts += [_LENGTH.pack(len(outputs)), *(_block(name.encode()) for name in outputs)]
        assert self._process.stdin is not None
        self._process.stdin.write(b"".join(parts))
        self._process.stdin.flush()
        if self._integer() == 0:
            raise Refused(self._read(self._integer()).decode())
        return [self._array() for _ in outputs]

    def tokens(self, tokenizer: str, text: bytes) -> tuple[list[int], bytes]:
        """The ids of a text by a tokenizer.json, and the text of those.

        Raises:
            Refused: the runtime does not read such a tokenizer.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(_LENGTH.pack(-1) + _block(tokenizer.encode()) + _block(text))
        self._process.stdin.flush()
        if self._integer() == 0:
            raise Refused(self._read(self._integer()).decode())
        ids = np.frombuffer(self._read(self._integer()), np.int32).tolist()
        return ids, self._read(self._integer())

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _read(self, size: int) -> bytes:
        assert self._process.stdout is not None
        data = self._process.stdout.read(size)
        assert len(data) == size, f"the driver ended with {self._process.wait()}"
        return data

    def _integer(self) -> int:
        return int(_LENGTH.unpack(self._read(8))[0])

    def _array(self) -> np.ndarray:
        kind, rank = self._integer(), self._integer()
        shape = struct.unpack(f"<{rank}q", self._read(8 * rank))
        data = self._read(self._integer())
        return np.frombuffer(data, onnx.helper.tensor_dtype_to_np_dtype(kind)).reshape(shape).copy()


def _block(data: bytes) -> bytes:
    return _LENGTH.pack(len(data)) + data
