"""Tries mutated models in a child process: each must be refused by ONNX Runtime or give one answer however computed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from child_runtime import Child, Died
from mutations import Feeds, mutate, tame


@dataclass
class Tally:
    """What became of the mutants."""

    answered: int = 0
    refused: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


class Wrong(BaseException):
    """A mutant that crashed, hung, or gave different answers; no test that expects an error may take this for one."""


class Fuzzer:
    """Mutants of given models, run on every instruction set that the child has."""

    def __init__(self, child: Child, library: str) -> None:
        self._child, self._library = child, library
        self._force(-1)
        self._levels = range(child.ask("native", "slmc_isa_level", False, ()) + 1)
        self.tally = Tally()

    def attack(self, seed: int, model: onnx.ModelProto, feeds: Feeds, mutants: int) -> None:
        """Raises Wrong at the first mutant that is neither refused nor answered alike."""
        level = self._child.ask("native", "slmc_isa_level", False, ())
        for number in range(mutants):
            mutant, fed = mutate(np.random.default_rng([seed, number]), model, feeds)
            try:
                said = self._tried(mutant, fed)
            except (Died, AssertionError) as error:
                raise Wrong(f"mutant {number} of seed {seed}: {error}\n{_described(mutant, fed)}") from None
            if said is None:
                self.tally.answered += 1
            else:
                self.tally.refused += 1
                self.tally.reasons[said] = self.tally.reasons.get(said, 0) + 1
        self._force(level)

    def _tried(self, model: onnx.ModelProto, feeds: Feeds) -> str | None:
        """None where there is an answer, else the kind of refusal."""
        try:
            session = self._opened(model)
            answers = [self._answer(session, level, feeds) for level in self._levels]
        except Exception as error:  # ONNX Runtime's classes, or its binding's own for wrong Python types
            return type(error).__name__
        for answer in answers[1:]:
            self._compare(answers[0], answer, tame(model, feeds))
        return None

    def _opened(self, model: onnx.ModelProto) -> Any:
        options = self._child.make("SessionOptions")
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        options.enable_cpu_mem_arena = False
        options.register_custom_ops_library(self._library)
        return self._child.make("InferenceSession", model.SerializeToString(), options)

    def _answer(self, session: Any, level: int, feeds: Feeds) -> list[np.ndarray]:
        self._force(level)
        answer: list[np.ndarray] = session.run(None, feeds)
        return answer

    def _force(self, level: int) -> None:
        self._child.ask("native", "slmc_force_isa", False, (level,))

    def _compare(self, one: list[np.ndarray], other: list[np.ndarray], exactly: bool) -> None:
        for a, b in zip(one, other, strict=True):
            assert a.shape == b.shape and a.dtype == b.dtype
            if exactly and a.size and np.isfinite(a).all():
                allowed = 1e-3 * np.abs(a).max() + 1e-5
                assert np.abs(a - b).max() <= allowed, f"levels differ by {np.abs(a - b).max()}, allowed {allowed}"


def _described(model: onnx.ModelProto, feeds: Feeds) -> str:
    nodes = "\n".join(onnx.printer.to_text(node) for node in model.graph.node)
    held = [f"{t.name} {onnx.TensorProto.DataType.Name(t.data_type)} {list(t.dims)}" for t in model.graph.initializer]
    return f"{nodes}\nweights: {held}\nfed: {[f'{n} {a.dtype} {a.shape}' for n, a in feeds.items()]}"
