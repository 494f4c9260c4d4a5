"""The function body of any operator of ours, by its name and attributes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from onnx import FunctionProto

from exporters.ops.event_functions import event_function
from exporters.ops.functions import plain_functions, qembedding_function, qlinear_function
from exporters.ops.signatures import EVENT_LINEAR, QEMBEDDING, QLINEAR, SPARSE_LINEAR
from exporters.ops.sparse_functions import sparse_linear_function

Attributes = Mapping[str, int]

_MADE: dict[str, Callable[[Attributes, bool], FunctionProto]] = {
    QLINEAR.name: lambda a, zeros: qlinear_function(a["bits"], a["group"], zeros, a["activation_bits"], a["tile"]),
    EVENT_LINEAR.name: lambda a, zeros: event_function(a["bits"], a["group"], zeros, a["activation_bits"]),
    QEMBEDDING.name: lambda a, zeros: qembedding_function(a["bits"], a["group"], zeros, a["tile"]),
    SPARSE_LINEAR.name: lambda a, zeros: sparse_linear_function({name: a[name] for name in SPARSE_LINEAR.ints}),
}
"""Operators whose body depends on their attributes, and on whether they have zero points."""


@functools.cache
def _plain() -> dict[str, FunctionProto]:
    return plain_functions()


def body_of(operator: str, attributes: Attributes, zeros: bool = False) -> FunctionProto:
    """The body of a node of domain ai.slmc; attributes: its integers; zeros: whether it has zero points."""
    plain = _plain().get(operator)
    return plain if plain is not None else _MADE[operator](attributes, zeros)
