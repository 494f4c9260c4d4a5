"""From our torch operators to nodes of domain ai.slmc, for torch's ONNX exporter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnxscript
import torch
from onnx.defs import OpSchema

import exporters.ops.anchored
import exporters.ops.attention
import exporters.ops.channels
import exporters.ops.events
import exporters.ops.fusions
import exporters.ops.products
import exporters.ops.recurrences
import exporters.ops.rows
import exporters.ops.sparse_products
import exporters.ops.spikes
import exporters.ops.tables
import exporters.ops.ternary  # noqa: F401  (they define the torch operators)
from exporters.artifact.errors import SlmcError
from exporters.ops.signatures import (
    ANCHORED_ATTENTION,
    ANCHORED_ATTENTION_INT8,
    CACHED_ATTENTION,
    CACHED_ATTENTION_HALF,
    CACHED_ATTENTION_INT8,
    DELTA_RULE,
    DOMAIN,
    EVENT_LINEAR,
    GATED_SPIKE_ADD,
    GATED_WKV,
    HALF_LINEAR,
    INTEGRATE_FIRE,
    LIF,
    LINEAR_RECURRENCE,
    PLIF,
    QEMBEDDING,
    QLINEAR,
    RMS_NORM,
    SHIFT_MIX2,
    SHIFT_MIX3,
    SIGN_EMBEDDING,
    SPARSE_LINEAR,
    SPIKE_ADD,
    SQUARED_RELU,
    TABLE_EMBEDDING,
    TABLE_LINEAR,
    TERNARY_LINEAR,
    VERSION,
    WKV,
    Parameter,
    Signature,
)

_INT64_MAX = 2**63 - 1
_OPSET = onnxscript.values.Opset(DOMAIN, VERSION)


def _formal(parameter: Parameter) -> OpSchema.FormalParameter:
    options = OpSchema.FormalParameterOption
    option = options.Optional if parameter.optional else options.Single
    return OpSchema.FormalParameter(parameter.name, parameter.type, param_option=option)


def _operator(signature: Signature) -> Any:
    """The operator as onnxscript calls it; the schema stays unregistered, so that no function body is inlined."""
    ints = [OpSchema.Attribute(name, OpSchema.AttrType.INT) for name in signature.ints]
    floats = [OpSchema.Attribute(name, OpSchema.AttrType.FLOAT) for name in signature.floats]
    schema = OpSchema(
        signature.name,
        DOMAIN,
        VERSION,
        inputs=[_formal(p) for p in signature.inputs],
        outputs=[_formal(p) for p in signature.outputs],
        attributes=[*ints, *floats],
    )
    return onnxscript.values.Op(_OPSET, signature.name, schema)


def _translation(signature: Signature) -> Callable[..., Any]:
    """A torch operator whose arguments are the inputs, then the attributes, in the signature's order."""
    operator, count = _operator(signature), len(signature.inputs)
    names = (*signature.ints, *signature.floats)

    def translate(*arguments: Any) -> Any:
        attributes = dict(zip(names, arguments[count:], strict=True))
        return operator(*arguments[:count], **attributes)

    return translate


def _rows_from(x: Any, first: Any) -> Any:
    """A standard node: rows first .. T - 1 of x [1, T, K]."""
    standard = onnxscript.opset21
    end, axis = (standard.Constant(value_ints=[value]) for value in (_INT64_MAX, 1))
    return standard.Slice(x, first, end, axis)


def _rms_norm(x: Any, shape: Sequence[int], weight: Any = None, epsilon: float | None = None) -> Any:
    """torch's own RMS norm, over one axis and with weights."""
    if len(shape) != 1 or weight is None:
        raise SlmcError("an RMS norm has no operator unless it is over one axis and has weights; give it weights of 1")
    smallest = torch.finfo(torch.float32).eps if epsilon is None else epsilon
    return _operator(RMS_NORM)(x, weight, epsilon=smallest)


def translation_table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """For torch.onnx.export(custom_translation_table=...)."""
    ops = torch.ops.slmc
    return {
        ops.rows_from.default: _rows_from,
        ops.qlinear.default: _translation(QLINEAR),
        ops.table_linear.default: _translation(TABLE_LINEAR),
        ops.event_linear.default: _translation(EVENT_LINEAR),
        ops.half_linear.default: _translation(HALF_LINEAR),
        ops.qembedding.default: _translation(QEMBEDDING),
        ops.table_embedding.default: _translation(TABLE_EMBEDDING),
        ops.sign_embedding.default: _translation(SIGN_EMBEDDING),
        ops.lif.default: _translation(LIF),
        ops.wkv.default: _translation(WKV),
        ops.cached_attention.default: _translation(CACHED_ATTENTION),
        ops.cached_attention_half.default: _translation(CACHED_ATTENTION_HALF),
        ops.cached_attention_int8.default: _translation(CACHED_ATTENTION_INT8),
        torch.ops.aten.rms_norm.default: _rms_norm,
        ops.anchored_attention.default: _translation(ANCHORED_ATTENTION),
        ops.anchored_attention_int8.default: _translation(ANCHORED_ATTENTION_INT8),
        ops.shift_mix2.default: _translation(SHIFT_MIX2),
        ops.shift_mix3.default: _translation(SHIFT_MIX3),
        ops.gated_wkv.default: _translation(GATED_WKV),
        ops.spike_add.default: _translation(SPIKE_ADD),
        ops.gated_spike_add.default: _translation(GATED_SPIKE_ADD),
        ops.squared_relu.default: _translation(SQUARED_RELU),
        ops.sparse_linear.default: _translation(SPARSE_LINEAR),
        ops.ternary_linear.default: _translation(TERNARY_LINEAR),
        ops.integrate_fire.default: _translation(INTEGRATE_FIRE),
        ops.plif.default: _translation(PLIF),
        ops.linear_recurrence.default: _translation(LINEAR_RECURRENCE),
        ops.delta_rule.default: _translation(DELTA_RULE),
    }
