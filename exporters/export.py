"""A torch language model with stored weights becomes model.onnx and model.onnx.data."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir
import torch
from onnx import FunctionProto
from onnx_ir.passes import PassManager
from onnx_ir.passes import common as passes
from onnxscript.optimizer import fold_constants
from torch import Tensor, nn

from exporters.artifact.errors import SlmcError
from exporters.artifact.manifest import LOGITS_FROM, ClassScores, Io, State
from exporters.fusing import fuse
from exporters.ops.bodies import Bodies
from exporters.ops.body_table import body_of, given_inputs
from exporters.ops.functions import OPSET
from exporters.ops.rows import rows_from
from exporters.ops.signatures import DOMAIN, VERSION
from exporters.ops.translate import translation_table
from exporters.states import StateSpec

GRAPH_NAME, DATA_NAME = "model.onnx", "model.onnx.data"
INLINE_BYTES = 64
"""Initializers not larger than this stay inside model.onnx: shapes and scalars, which the runtime wants there."""


@dataclass(frozen=True)
class ExportedGraph:
    """What was written: the graph's inputs and outputs, and the bytes of its two files."""

    io: Io
    graph_bytes: int
    data_bytes: int


class _Flat(nn.Module):
    """The model with its states as separate arguments, as a graph has them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        logits, after = self.model(tokens, list(states))
        return logits, *after


class _FlatFrom(_Flat):
    """The same, with one more argument at the end: from which token on the head gives logits."""

    def __init__(self, model: nn.Module, head: str) -> None:
        super().__init__(model)
        self.head = head

    def forward(self, tokens: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        *states, first = rest

        def shorten(_: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
            return (rows_from(given[0], first),)

        hook = self.model.get_submodule(self.head).register_forward_pre_hook(shorten)
        try:
            return super().forward(tokens, *states)
        finally:
            hook.remove()


def graph_io(
    state_specs: list[StateSpec], context: int | None = None, classes: ClassScores | None = None,
    head: str | None = None,
) -> Io:  # fmt: skip
    """Names of inputs and outputs; context is the most tokens that fit, None without a limit; head: see
    `export_graph`."""
    states = tuple(
        State(f"state.{s.name}", f"next.{s.name}", (1, *s.shape), s.dtype, s.fill, s.in_place) for s in state_specs
    )
    logits_from = LOGITS_FROM if head else None
    return Io("tokens", "logits", states, context=context, classes=classes, logits_from=logits_from)


def export_graph(
    model: nn.Module, state_specs: list[StateSpec], folder: Path, weight_bytes: int, context: int | None = None,
    classes: ClassScores | None = None, head: str | None = None,
) -> ExportedGraph:  # fmt: skip
    """Write a model (float32, batch 1, tokens of any length >= 1) into an existing folder.

    Args:
        model: tokens int64 [1, T] and states, each [1, *shape], to logits [1, T, V] and states.
        state_specs: every state, in order.
        weight_bytes: what the size law says that all weights take; the written file must agree.
        context: the most tokens that the states have room for, None without a limit.
        classes: of a classifier, whose logits are scores [1, 1, classes].
        head: path of the module that makes logits of rows, one by one. The graph then has an input, int64 [1], that
            says from which token on (`Io.logits_from`), and works out those alone.

    Raises:
        SlmcError: torch cannot trace the model, or the files do not have the size that their tensors ask for.
    """
    io = graph_io(state_specs, context, classes, head)
    program = _trace(_FlatFrom(model, head) if head else _Flat(model), io)
    _tidy(program)
    bodies = _attach_functions(program)
    io = dataclasses.replace(io, bodies=bodies.most, fused=bodies.fused)
    _sort_initializers(program)
    _check_size(program, weight_bytes)
    path = folder / GRAPH_NAME
    onnx_ir.save(program, path, external_data=DATA_NAME, size_threshold_bytes=INLINE_BYTES)
    return ExportedGraph(io, path.stat().st_size, (folder / DATA_NAME).stat().st_size)


def _trace(model: _Flat, io: Io) -> onnx_ir.Model:
    tokens = torch.zeros(1, 4, dtype=torch.int64)
    others = [torch.full(s.shape, s.fill, dtype=getattr(torch, s.dtype)) for s in io.states]
    names = [io.tokens, *(s.input for s in io.states)]
    if io.logits_from:
        others.append(torch.zeros(1, dtype=torch.int64))
        names.append(io.logits_from)
    shapes: tuple[Any, ...] = ({1: torch.export.Dim("T", min=1)}, *([tuple(None for _ in others)] if others else []))
    with warnings.catch_warnings(), _quiet("torch.onnx"), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            exported = torch.export.export(model, (tokens, *others), dynamic_shapes=shapes, strict=False)
            program = torch.onnx.export(
                exported,
                dynamo=True,
                optimize=False,
                verbose=False,
                custom_translation_table=translation_table(),
                opset_version=OPSET,
                input_names=names,
                output_names=[io.logits, *(s.output for s in io.states)],
            )
        except Exception as error:  # torch raises many kinds
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise SlmcError(f"torch could not turn the model into a graph: {first}") from error
    if program is None:
        raise SlmcError("torch's ONNX exporter gave no program")
    return program.model


@contextlib.contextmanager
def _quiet(logger: str) -> Iterator[None]:
    """Only errors from a library's logger while the body runs."""
    found = logging.getLogger(logger)
    before = found.level
    found.setLevel(logging.ERROR)
    try:
        yield
    finally:
        found.setLevel(before)


def _attach_functions(model: onnx_ir.Model) -> Bodies:
    """Fuse nodes, and give every node of our domain the function body that fits its attributes."""
    bodies = Bodies()
    fused = dict(fuse(model))
    for node in model.graph:
        if node.domain == DOMAIN:
            node.op_type = bodies.name(fused[node].function(bodies) if node in fused else _body(node))
    for body in bodies.functions:
        function = onnx_ir.serde.deserialize_function(body)
        model.functions[function.identifier()] = function
    model.opset_imports[DOMAIN] = VERSION
    model.opset_imports["com.microsoft"] = 1
    model.ir_version = 10
    return bodies


def _body(node: onnx_ir.Node) -> FunctionProto:
    kinds = (onnx_ir.AttributeType.INT, onnx_ir.AttributeType.FLOAT)
    numbers = {name: a.value for name, a in node.attributes.items() if a.type in kinds}
    return body_of(node.op_type, numbers, given_inputs(node.op_type, node.inputs))


def _tidy(model: onnx_ir.Model) -> None:
    """Fold what is constant and drop what is unused, torch's notes on its own source files among it.

    torch's optimizer would do the same and also merge equal weights, against the size law.
    """
    fold_constants(model)
    _share_initializers(model)
    PassManager(
        [
            passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
            passes.CommonSubexpressionEliminationPass(),
            passes.IdentityEliminationPass(),
            passes.RemoveUnusedNodesPass(),
            passes.OutputFixPass(),
            passes.NameFixPass(),
            passes.ClearMetadataAndDocStringPass(),
        ]
    )(model)
    for name, value in list(model.graph.initializers.items()):
        if name.startswith("model."):
            value.name = name.removeprefix("model.")


def _share_initializers(model: onnx_ir.Model) -> None:
    """One initializer for tensors that two modules hold in common; equal tensors that are stored twice stay two."""
    first: dict[tuple[int, tuple[int, ...]], onnx_ir.Value] = {}
    for name, value in list(model.graph.initializers.items()):
        raw = getattr(value.const_value, "raw", None)
        if not isinstance(raw, Tensor) or raw.numel() == 0:
            continue
        kept = first.setdefault((raw.data_ptr(), tuple(raw.shape)), value)
        if kept is not value:
            value.replace_all_uses_with(kept)
            del model.graph.initializers[name]


def _check_size(model: onnx_ir.Model, weight_bytes: int) -> None:
    """Weights are whatever is not an int64 (shapes, axes) or a scalar."""
    tensors = [v.const_value for v in model.graph.initializers.values() if v.const_value is not None]
    stored = sum(t.nbytes for t in tensors if t.dtype != onnx_ir.DataType.INT64 and len(t.shape) > 0)
    if stored != weight_bytes:
        raise SlmcError(
            f"the graph holds {stored} bytes of weights, the size law says {weight_bytes}; "
            "this is a fault of slmc: please report it with the recipe"
        )


def _sort_initializers(model: onnx_ir.Model) -> None:
    """Widest element type first: every tensor then starts at a multiple of its element size, without padding."""
    initializers = model.graph.initializers
    ordered = sorted(initializers.items(), key=lambda item: -item[1].const_value.dtype.itemsize)  # type: ignore[union-attr]
    for name, _ in ordered:
        del initializers[name]
    for name, value in ordered:
        initializers[name] = value
