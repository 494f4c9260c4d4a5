"""An artifact's graph opened on ONNX Runtime: tokens in, logits out, the recurrent states kept and fed back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from exporters.artifact.errors import NotAvailable, SlmcError
from exporters.artifact.manifest import Io, State
from targets.device.graph_checks import check_io, load_error, one_line
from targets.device.older_graphs import refuse_shared_names

Tokens = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]

BODIES_OPTION: Final = "ai.slmc.bodies"
"""The session option that tells the operator library for how many bodies of one operator it registers names."""
FUSED_OPTION: Final = "ai.slmc.fused"
"""Likewise of fused nodes, which have more of them."""

_ALIGNMENT_BYTES: Final = 64
# ONNX Runtime's exceptions share no base of their own; IO binding raises plain RuntimeError and ValueError.
_ORT_ERRORS: Final[tuple[type[Exception], ...]] = (
    *(kind for kind in vars(ort_errors).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    RuntimeError,
    ValueError,
)


@dataclass(frozen=True)
class _StateMemory:
    """States in one block of bytes, and views of each, NumPy's and ONNX Runtime's; nothing is copied between them."""

    states: tuple[State, ...]
    views: tuple[npt.NDArray[Any], ...]
    values: tuple[Any, ...]

    def refill(self) -> None:
        """Every entry of every state at its fill value."""
        for state, view in zip(self.states, self.views, strict=True):
            view.fill(state.fill)


@dataclass(frozen=True)
class _Slot:
    """Buffers of one call: tokens int64 [1, T], logits float32 [1, T or 1, V], and ONNX Runtime's view of both.

    first: from which token on logits are given, where the graph asks; 0 or -1.
    """

    tokens: Tokens
    logits: Logits
    tokens_value: Any
    logits_value: Any
    first: int


class Session:
    """One model in one place of a text. Not for use by two threads at once.

    States that a call may overwrite (caches) are input and output at once. The others live in two blocks of memory:
    of two IO bindings, made once, one reads block 0 and writes block 1, the other the reverse. A call takes them in
    turn, so that no state is ever copied or bound again. (With 42 states of 256 floats, binding them anew costs
    45-80 us per token more than this, feeding numpy arrays 55-105 us.)
    """

    def __init__(self, inference: Any, io: Io, width: int, graph: Path) -> None:
        """width: of the logits, which is the vocabulary, or the number of classes."""
        self.io = io
        self.width = width
        self.vocabulary = io.classes.vocabulary if io.classes else width
        self.state_bytes = sum(_state_bytes(state) for state in io.states)
        self._graph = graph
        self._inference = inference
        moving = [s for s in io.states if not s.in_place]
        self._memories = (_state_memory(moving), _state_memory(moving))
        self._held = _state_memory([s for s in io.states if s.in_place])
        self._firsts = {n: ort.OrtValue.ortvalue_from_numpy(np.array([n], np.int64)) for n in (0, -1)}
        self._step_slot = self._slot(1)
        self._bindings = tuple(self._bind_states(self._memories[now], self._memories[1 - now]) for now in (0, 1))
        for binding in self._bindings:
            self._bind_slot(binding, self._step_slot)
        self._now, self._read = 0, 0

    @property
    def room(self) -> int | None:
        """How many more tokens of this text the states have room for; None without a limit."""
        return None if self.io.context is None else self.io.context - self._read

    def reset(self) -> None:
        """Sets every entry of every state to its fill value: the beginning of a text."""
        self._memories[self._now].refill()
        self._held.refill()
        self._read = 0

    def step(self, token: int) -> Logits:
        """The next token's logits [V], as an array of the caller's own, after `token`."""
        if not 0 <= token < self.vocabulary:
            raise self._bad_token(token)
        self._check_room(1)
        self._step_slot.tokens[0, 0] = token
        self._call()
        self._read += 1
        logits: Logits = self._step_slot.logits[0, 0].copy()
        return logits

    def run(self, tokens: Tokens) -> Logits:
        """Logits float32 [1, T, V] for tokens int64 [1, T], T of 1 and more; of a classifier [1, 1, classes].

        Raises:
            SlmcError: shape, type or range of the tokens; the states are then as before the call.
        """
        self._check(tokens)
        slot = self._slot(tokens.shape[1])
        self._run_slot(slot, tokens)
        return slot.logits

    def prefill(self, tokens: Tokens, chunk_tokens: int = 64) -> Logits:
        """The logits [V] after the last of tokens int64 [1, T], read in chunks.

        A graph from before logits could be asked for gives those of every token: memory for chunk_tokens x V.
        """
        self._check(tokens)
        if chunk_tokens < 1:
            raise SlmcError(f"chunk_tokens is {chunk_tokens}; it must be 1 or more")
        if self.io.classes and self.io.classes.whole_texts:
            chunk_tokens = tokens.shape[1]
        slot = self._slot(min(chunk_tokens, tokens.shape[1]), last=True)
        for start in range(0, tokens.shape[1], chunk_tokens):
            part = tokens[:, start : start + chunk_tokens]
            if part.shape[1] != slot.tokens.shape[1]:
                slot = self._slot(part.shape[1], last=True)
            self._run_slot(slot, part)
        logits: Logits = slot.logits[0, -1].copy()
        return logits

    def _slot(self, count: int, last: bool = False) -> _Slot:
        """Buffers for so many tokens; last: whether the logits of the last one are enough, where the graph lets us."""
        tokens = np.zeros((1, count), np.int64)
        one_row = self.io.classes or (last and self.io.logits_from)
        logits = np.empty((1, 1 if one_row else count, self.width), np.float32)
        tokens_value, logits_value = (ort.OrtValue.ortvalue_from_numpy(array) for array in (tokens, logits))
        return _Slot(tokens, logits, tokens_value, logits_value, -1 if last else 0)

    def _run_slot(self, slot: _Slot, tokens: Tokens) -> None:
        slot.tokens[:] = tokens
        binding = self._bindings[self._now]
        self._bind_slot(binding, slot)
        try:
            self._call()
            self._read += slot.tokens.shape[1]
        finally:
            # A binding owns what is bound to it: without this a long prompt's logits would stay in memory.
            self._bind_slot(binding, self._step_slot)

    def _call(self) -> None:
        try:
            self._inference.run_with_iobinding(self._bindings[self._now])
        except _ORT_ERRORS as error:
            raise SlmcError(f"{self._graph}: ONNX Runtime stopped: {one_line(error)}") from error
        self._now = 1 - self._now

    def _bind_states(self, read: _StateMemory, write: _StateMemory) -> Any:
        binding = self._inference.io_binding()
        pairs = [*zip(read.states, read.values, write.values, strict=True),
                 *zip(self._held.states, self._held.values, self._held.values, strict=True)]  # fmt: skip
        for state, before, after in pairs:
            binding.bind_ortvalue_input(state.input, before)
            binding.bind_ortvalue_output(state.output, after)
        return binding

    def _bind_slot(self, binding: Any, slot: _Slot) -> None:
        binding.bind_ortvalue_input(self.io.tokens, slot.tokens_value)
        binding.bind_ortvalue_output(self.io.logits, slot.logits_value)
        if self.io.logits_from:
            binding.bind_ortvalue_input(self.io.logits_from, self._firsts[slot.first])

    def _check(self, tokens: Tokens) -> None:
        if tokens.ndim != 2 or tokens.shape[0] != 1 or tokens.shape[1] < 1 or tokens.dtype != np.int64:
            raise SlmcError(
                f"tokens are {tokens.dtype} {list(tokens.shape)}; int64 [1, T] with T of 1 or more is needed"
            )
        # Gather takes negative numbers from the end, so that a wrong token would pass without a word.
        for token in (int(tokens.min()), int(tokens.max())):
            if not 0 <= token < self.vocabulary:
                raise self._bad_token(token)
        self._check_room(tokens.shape[1])

    def _check_room(self, tokens: int) -> None:
        if self._read and self.io.classes and self.io.classes.whole_texts:
            raise SlmcError(
                f"{self._graph}: it reads a whole text in one call, and {self._read} tokens of this one are read; "
                "begin a new text"
            )
        if self.room is not None and tokens > self.room:
            raise SlmcError(
                f"{self._graph}: {self._read + tokens} tokens do not fit into its context of {self.io.context}; begin "
                "a new text, or build it with a larger --context"
            )

    def _bad_token(self, token: int) -> SlmcError:
        return SlmcError(
            f"token {token} is not in the vocabulary of {self._graph} (0 to {self.vocabulary - 1}); "
            "use the tokenizer that lies beside it"
        )


def open_session(graph: Path, io: Io, *, native: Path | None, threads: int = 1) -> Session:
    """Opens `graph` on the CPU, with the operator library `native` registered if one is given; states at their fill.

    Raises:
        SlmcError: the file is missing or damaged, or does not have the inputs and outputs that `io` names.
        NotAvailable: this ONNX Runtime lacks an operator of the graph, or cannot load the library.
    """
    if not graph.is_file():
        raise SlmcError(f"{graph}: no such file; make an artifact with 'slmc build'")
    if threads < 1:
        raise SlmcError(f"threads is {threads}; it must be 1 or more")
    if native is None and io.bodies is None:
        refuse_shared_names(graph, ort.__version__)
    options = session_options(native, threads, io.bodies, io.fused)
    try:
        inference = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except _ORT_ERRORS as error:
        raise load_error(graph, native, error) from error
    return Session(inference, io, check_io(graph, inference, io), graph)


def session_options(native: Path | None, threads: int, bodies: int | None = None, fused: int = 0) -> Any:
    """ONNX Runtime's options for an artifact, its operator library registered under the names of so many bodies.

    Raises:
        NotAvailable: this ONNX Runtime cannot load the library.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Every error comes back as an exception; ONNX Runtime's own coloured line on stderr would only repeat it.
    options.log_severity_level = 4
    if threads > 1:
        # Beside one busy foreign process, six 1536x1536 layers on 2 threads: spinning p99 18-26 ms and 4.0 ms of CPU
        # per call, without p99 10-12 ms and 2.0 ms of CPU, at the same median.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if bodies is not None:
        options.add_session_config_entry(BODIES_OPTION, str(bodies))
    options.add_session_config_entry(FUSED_OPTION, str(fused))
    if native is not None:
        try:
            options.register_custom_ops_library(str(native))
        except _ORT_ERRORS as error:
            raise NotAvailable(
                f"{native}: ONNX Runtime {ort.__version__} cannot load this operator library: {one_line(error)}; "
                "run without it, or install slmc on this machine"
            ) from error
    return options


def _state_memory(states: Sequence[State]) -> _StateMemory:
    """Memory for all states, each aligned to 64 bytes and holding its fill value."""
    sizes = [-(-_state_bytes(state) // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES for state in states]
    raw = np.zeros(sum(sizes) + _ALIGNMENT_BYTES, np.uint8)
    first = -raw.ctypes.data % _ALIGNMENT_BYTES
    block = raw[first : first + sum(sizes)]
    views, values, offset = [], [], 0
    for state, size in zip(states, sizes, strict=True):
        view = block[offset : offset + _state_bytes(state)].view(state.dtype).reshape(state.shape)
        view.fill(state.fill)
        views.append(view)
        values.append(ort.OrtValue.ortvalue_from_numpy(view))
        offset += size
    return _StateMemory(tuple(states), tuple(views), tuple(values))


def _state_bytes(state: State) -> int:
    return int(np.prod(state.shape, dtype=np.int64)) * np.dtype(state.dtype).itemsize
