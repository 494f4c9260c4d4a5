"""Function bodies of one graph, each under a name of its own: ONNX Runtime below 1.27 takes one body per name.

The first body of an operator has the operator's name, the next ones "QLinear_2", "QLinear_3". The compiled library
registers its kernels under as many names as a session asks for (`targets.device.session.BODIES_OPTION`).
"""

from __future__ import annotations

from onnx import FunctionProto

from exporters.ops.signatures import FUSED


class Bodies:
    """Collects the bodies that the nodes of a graph need; equal ones are kept once."""

    def __init__(self) -> None:
        self._numbers: dict[str, dict[bytes, int]] = {}
        self.functions: list[FunctionProto] = []

    def name(self, body: FunctionProto) -> str:
        """The operator name that a node with this body must have."""
        numbers = self._numbers.setdefault(body.name, {})
        key = body.SerializeToString(deterministic=True)
        if key not in numbers:
            numbers[key] = len(numbers) + 1
            named = FunctionProto()
            named.CopyFrom(body)
            named.name = _numbered(body.name, numbers[key])
            self.functions.append(named)
        return _numbered(body.name, numbers[key])

    @property
    def most(self) -> int:
        """How many bodies the operator with the most of them has, fused nodes apart; 1 at least."""
        return max((len(numbers) for name, numbers in self._numbers.items() if name != FUSED), default=1)

    @property
    def fused(self) -> int:
        """How many bodies fused nodes have."""
        return len(self._numbers.get(FUSED, ()))


def operator_of(name: str) -> str:
    """The operator that a node of our domain with this name is: QLinear of QLinear_2."""
    operator, _, number = name.rpartition("_")
    return operator if operator and number.isdecimal() else name


def _numbered(operator: str, number: int) -> str:
    return operator if number == 1 else f"{operator}_{number}"
