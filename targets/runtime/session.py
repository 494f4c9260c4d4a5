"""An artifact opened by slmc-run, over a pipe: what targets.device.session.Session is over ONNX Runtime."""

from __future__ import annotations

import contextlib
import struct
import subprocess
import weakref
from pathlib import Path
from typing import IO, Final

import numpy as np

from exporters.artifact.errors import NotAvailable, SlmcError
from exporters.artifact.manifest import Io
from targets.device.session import Logits, Tokens
from targets.runtime.program import served_words

_NUMBER: Final = struct.Struct("<i")
_REFUSED: Final = -1


class ServedSession:
    """One model in one place of a text, in a process of its own that ends with this object."""

    def __init__(self, program: Path, artifact: Path, io: Io, threads: int) -> None:
        """
        Raises:
            SlmcError: the program refuses the artifact.
            NotAvailable: it cannot be started.
        """
        self.io, self._artifact, self._read = io, artifact, 0
        try:
            self._process = subprocess.Popen(
                served_words(program, artifact, threads),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except OSError as error:
            raise NotAvailable(f"{program}: cannot be started: {error.strerror}") from error
        self._finalizer = weakref.finalize(self, _end, self._process)
        self.width = self._number()
        self.vocabulary = io.classes.vocabulary if io.classes else self.width

    @property
    def room(self) -> int | None:
        """How many more tokens of this text the states have room for; None without a limit."""
        return None if self.io.context is None else self.io.context - self._read

    def reset(self) -> None:
        """The beginning of a text."""
        self._call(np.zeros(0, np.int64))
        self._read = 0

    def step(self, token: int) -> Logits:
        """The next token's logits [V] after `token`."""
        logits: Logits = self.run(np.array([[token]], np.int64))[0, 0]
        return logits

    def run(self, tokens: Tokens) -> Logits:
        """Logits float32 [1, T, V] for tokens int64 [1, T], T of 1 and more; of a classifier [1, 1, classes].

        Raises:
            SlmcError: the program refuses the tokens, or has ended.
        """
        if tokens.ndim != 2 or tokens.shape[0] != 1 or not tokens.shape[1]:
            raise SlmcError(f"tokens have shape {list(tokens.shape)}; expected [1, T] with T of 1 or more")
        if ((tokens < 0) | (tokens >= self.vocabulary)).any():
            raise SlmcError(f"tokens are not all in the vocabulary of {self.vocabulary}")
        logits = self._call(tokens[0])
        self._read += tokens.shape[1]
        return logits.reshape(1, -1, self.width)

    def prefill(self, tokens: Tokens, chunk_tokens: int = 64) -> Logits:
        """The logits [V] after the last of tokens int64 [1, T], read in chunks; of a model that reads whole texts, in
        one call."""
        if self.io.classes and self.io.classes.whole_texts:
            chunk_tokens = tokens.shape[1]
        logits = np.zeros((1, 1, self.width), np.float32)
        for start in range(0, tokens.shape[1], chunk_tokens):
            logits = self.run(tokens[:, start : start + chunk_tokens])
        last: Logits = logits[0, -1]
        return last

    def _call(self, ids: Tokens) -> Logits:
        data = _NUMBER.pack(len(ids)) + ids.astype("<i4").tobytes()
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except OSError:
            raise self._ended() from None
        count = self._number()
        if count == _REFUSED:
            raise SlmcError(f"{self._artifact}: {self._bytes(self._number()).decode('utf-8', 'replace')}")
        return np.frombuffer(self._bytes(4 * count), "<f4").copy()

    def _number(self) -> int:
        return int(_NUMBER.unpack(self._bytes(_NUMBER.size))[0])

    def _bytes(self, size: int) -> bytes:
        assert self._process.stdout is not None
        data = self._process.stdout.read(size)
        if len(data) != size:
            raise self._ended()
        return data

    def _ended(self) -> SlmcError:
        _, said = self._process.communicate()
        text = said.decode("utf-8", "replace").strip().removeprefix("error: ")
        return SlmcError(f"{self._artifact}: {text or f'slmc-run ended with {self._process.returncode}'}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process that nobody asks any more."""
    process.kill()
    for pipe in (process.stdin, process.stdout, process.stderr):
        _close(pipe)
    process.wait()


def _close(pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        with contextlib.suppress(OSError):
            pipe.close()
