"""The function body of any operator of ours, by its name and attributes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from onnx import FunctionProto

from exporters.ops.event_functions import event_function
from exporters.ops.functions import (
    attention_function,
    plain_functions,
    qembedding_function,
    qlinear_function,
    table_embedding_function,
    table_linear_function,
)
from exporters.ops.signatures import (
    CACHED_ATTENTION,
    CACHED_ATTENTION_HALF,
    CACHED_ATTENTION_INT8,
    EVENT_LINEAR,
    QEMBEDDING,
    QLINEAR,
    SIGNATURES,
    SPARSE_LINEAR,
    TABLE_EMBEDDING,
    TABLE_LINEAR,
)
from exporters.ops.sparse_functions import sparse_linear_function

Attributes = Mapping[str, Any]

_MADE: dict[str, Callable[[Attributes, bool, bool], FunctionProto]] = {
    QLINEAR.name: lambda a, zeros, _: qlinear_function(a["bits"], a["group"], zeros, a["activation_bits"], a["tile"]),
    TABLE_LINEAR.name: lambda a, *_: table_linear_function(a["bits"], a["group"], a["activation_bits"], a["tile"]),
    EVENT_LINEAR.name: lambda a, zeros, _: event_function(a["bits"], a["group"], zeros, a["activation_bits"]),
    QEMBEDDING.name: lambda a, zeros, _: qembedding_function(a["bits"], a["group"], zeros, a["tile"]),
    TABLE_EMBEDDING.name: lambda a, *_: table_embedding_function(a["bits"], a["tile"]),
    SPARSE_LINEAR.name: lambda a, *_: sparse_linear_function({name: a[name] for name in SPARSE_LINEAR.ints}),
    CACHED_ATTENTION.name: lambda a, _, tables: attention_function(CACHED_ATTENTION.name, a, tables),
    CACHED_ATTENTION_HALF.name: lambda a, _, tables: attention_function(CACHED_ATTENTION_HALF.name, a, tables),
    CACHED_ATTENTION_INT8.name: lambda a, _, tables: attention_function(CACHED_ATTENTION_INT8.name, a, tables),
}
"""Operators whose body depends on their attributes, and on whether they have zero points or rotary tables."""

_INPUTS = {signature.name: [parameter.name for parameter in signature.inputs] for signature in SIGNATURES}


@functools.cache
def _plain() -> dict[str, FunctionProto]:
    return plain_functions()


def given_inputs(operator: str, present: Sequence[object]) -> frozenset[str]:
    """Names of the inputs that a node has, in its order; what is not there is None or ''."""
    return frozenset(name for name, value in zip(_INPUTS[operator], present, strict=False) if value)


def body_of(operator: str, attributes: Attributes, given: Collection[str]) -> FunctionProto:
    """The body of a node of domain ai.slmc; attributes: its numbers; given: names of the inputs that it has."""
    plain = _plain().get(operator)
    return plain if plain is not None else _MADE[operator](attributes, "zeros" in given, "cos" in given)
