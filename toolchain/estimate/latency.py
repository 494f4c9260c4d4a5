"""Forecast of the time per token before compression: the model's workload at the costs of the target."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from exporters.artifact.errors import NotAvailable
from exporters.artifact.native_library import build_id
from exporters.formats.base import bytes_for, stored_bits
from exporters.formats.catalog import format_named
from exporters.formats.parts import Work
from exporters.graph_nodes import ATTENDS, GraphNode, Workload
from exporters.microbenchmarks import activation_widths
from exporters.ops.steps import follows
from targets.cpus.cost import Prediction, predict
from targets.cpus.spec import Cpu
from targets.device.native import installed_library
from toolchain.compress.recipe import ACTIVATION_BITS, LayerConfig
from toolchain.model.catalog import LoadedModel, stored_twin
from toolchain.search.problem import Problem
from toolchain.search.times import Key, Times

MARGIN = 0.2
"""A forecast may be wrong by so much (benchmarks/latency_model.py): only beyond it a limit counts as out of reach."""

_OPERATORS = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "relu": "Relu", "sigmoid": "Sigmoid",
    "native_layer_norm": "LayerNormalization", "layer_norm": "LayerNormalization", "rms_norm": "RmsNorm",
    "cat": "Concat", "slice": "Slice", "select": "Gather",
    "unsqueeze": "Unsqueeze", "lif": "Lif", "wkv": "Wkv", "shift_mix2": "ShiftMix2", "shift_mix3": "ShiftMix3",
    "gated_wkv": "GatedWkv", "spike_add": "SpikeAdd", "gated_spike_add": "GatedSpikeAdd", "squared_relu": "SquaredRelu",
    "integrate_fire": "IntegrateFire", "plif": "Plif", "linear_recurrence": "LinearRecurrence",
    "delta_rule": "DeltaRule", "anchored_attention": "AnchoredAttention",
    "anchored_attention_int8": "AnchoredAttentionInt8", "silu": "Sigmoid",
    "cached_attention": "CachedAttention", "cached_attention_half": "CachedAttentionHalf",
    "cached_attention_int8": "CachedAttentionInt8",
}  # fmt: skip
"""torch's operators -> those of the exported graph; others keep their name and get the price of any plain node."""

_NOTHING = {
    "detach", "view", "_unsafe_view", "t", "transpose", "alias", "clone", "mm", "addmm", "bmm", "matmul", "linear",
    "embedding", "expand", "_to_copy", "to", "dropout", "lift_fresh", "empty", "empty_like", "copy_", "zeros",
}  # fmt: skip
"""Operators that become no node of their own, and the products, which are counted as layers."""


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Every operator that one forward pass calls, except what depends on parameters alone: that is folded at export."""

    def __init__(self, constants: list[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.nodes: list[GraphNode] = []
        self._constant = {id(t) for t in constants}
        self._kept: list[Any] = []  # the id of a constant must not be given to another tensor meanwhile

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        outputs = [
            t for t in (result if isinstance(result, (tuple, list)) else [result]) if isinstance(t, torch.Tensor)
        ]
        inputs = [t for a in args for t in (a if isinstance(a, (tuple, list)) else [a]) if isinstance(t, torch.Tensor)]
        if inputs and all(id(t) in self._constant for t in inputs):
            self._constant |= {id(t) for t in outputs}
            self._kept += outputs
            return result
        name = func.__name__.split(".")[0]
        if name not in _NOTHING and outputs:
            made = outputs[:1] if _OPERATORS.get(name, name).startswith(ATTENDS) else outputs
            parameters = sum(4 * t.numel() for t in inputs if id(t) in self._constant)
            self.nodes.append(
                GraphNode(
                    operator=_OPERATORS.get(name, name),
                    format="",
                    rows=max(t.numel() for t in made),
                    cols=1,
                    nbytes=parameters,
                    behind=follows(_OPERATORS.get(name, name)),
                )
            )
        return result


def model_workload(model: LoadedModel, formats: Mapping[str, str]) -> Workload:
    """What one token of a model asks for, with every layer in the named format: one forward pass, and the tree."""
    module, twin = model.module, stored_twin(model.module, model.kv_cache)
    recorder = _Recorder([*module.parameters(), *module.buffers()])
    with torch.inference_mode(), recorder:
        twin(torch.zeros(1, 1, dtype=torch.int64), twin.initial_state(1))
    nodes = list(recorder.nodes)
    for layer in model.tree.layers:
        name = formats[layer.path]
        size = bytes_for(format_named(name), layer.rows, layer.cols)
        if layer.kind != "linear":
            nodes.append(GraphNode(operator="Gather", format="", rows=layer.cols, cols=1, nbytes=size // layer.rows))
        else:
            nodes += _matrices(name, layer.rows, layer.cols, layer.path)
    specs = twin.state_specs()
    return Workload(tuple(nodes), len(specs), sum(s.nbytes for s in specs))


@dataclass(frozen=True)
class LatencyForecast:
    """The least time per token that any choice of formats reaches on the target, predicted; limit in ms."""

    target: str
    fastest: Prediction
    limit_ms: float | None

    @property
    def out_of_reach(self) -> bool:
        return self.limit_ms is not None and self.fastest.decode_ms > self.limit_ms * (1 + MARGIN)

    def text(self) -> str:
        how = "from measured costs" if self.fastest.basis == "measured costs" else "estimated"
        limit = "" if self.limit_ms is None else f" of at most {self.limit_ms:g} ms"
        verdict = ": out of reach by this forecast; the artifact's measurement decides" if self.out_of_reach else ""
        return f"{self.target}: {self.fastest.decode_ms:.3g} ms per token at best, predicted {how}{limit}{verdict}"


def old_costs(cpu: Cpu) -> str | None:
    """Why a target's measured costs are not those of the operators that are installed here; None if they are, or if
    nothing was measured."""
    library = installed_library()
    reason = cpu.outdated(cpu.model, build_id(library) if library else None, cpu.runtime)
    return reason and f"{cpu.name}: {reason}; measure again with 'slmc targets probe'"


def forecast_latency(
    problem: Problem, model: LoadedModel, cpu: Cpu, threads: int, limit_ms: float | None
) -> LatencyForecast | None:
    """The forecast of a build; None where the target says too little for one.

    Every layer is priced alone in each of its formats and takes the fastest.
    """
    options = problem.options
    smallest = {p: min((c.format for c in o), key=lambda f: format_named(f).bits) for p, o in options.items()}
    try:
        base = model_workload(model, smallest)
        fastest: dict[tuple[int, int, frozenset[str]], str] = {}
        for layer in model.tree.layers:
            formats = frozenset(c.format for c in options[layer.path])
            key = (layer.rows, layer.cols, formats)
            if layer.kind == "linear" and key not in fastest:
                times = {f: predict(cpu, _alone(base, f, *key[:2]), threads).matrices_ms for f in formats}
                fastest[key] = min(sorted(times), key=times.__getitem__)
            if layer.kind == "linear":
                smallest[layer.path] = fastest[key]
        found = predict(cpu, model_workload(model, smallest), threads)
    except NotAvailable:
        return None
    return LatencyForecast(cpu.name, found, limit_ms)


def priced(problem: Problem, model: LoadedModel, cpu: Cpu, threads: int, limit_ms: float | None) -> Problem:
    """The problem with predicted times, and the latency limit as one that the search steers by.

    As it was where the target has no measured costs: an estimate from bandwidth knows no operator from another.
    """
    times = times_on(cpu, problem, model, threads)
    if times is None:
        return problem
    most_ms = cpu.mean_ms_within(limit_ms) if limit_ms is not None and threads == 1 else limit_ms
    constraints = dataclasses.replace(problem.constraints, max_ms=most_ms)
    return dataclasses.replace(problem, times=times, constraints=constraints)


def times_on(cpu: Cpu, problem: Problem, model: LoadedModel, threads: int) -> Times | None:
    """What every layer takes on a target in each of its formats; None without measured costs."""
    if not cpu.costs:
        return None
    middle = {path: _nearest(options, _usual_bits(problem)) for path, options in problem.options.items()}
    base = model_workload(model, middle)
    whole = predict(cpu, base, threads)
    prices: dict[tuple[str, int, int, int], float] = {}
    layer_ms: dict[Key, float] = {}
    for layer in problem.tree.layers:
        for config in problem.options[layer.path] if layer.kind == "linear" else ():
            for activations, bits in ACTIVATION_BITS.items():
                key = (config.format, layer.rows, layer.cols, bits)
                if key not in prices:
                    prices[key] = predict(cpu, _alone(base, *key), threads).matrices_ms
                layer_ms[layer.path, config.format, activations] = prices[key]
    return Times(whole.others_ms + whole.call_ms, layer_ms)


def _usual_bits(problem: Problem) -> float:
    """Bits per weight that recipes of this problem will have: those of the memory limit, or four."""
    most = problem.constraints.max_bytes
    return 4.0 if most is None else 8 * most / problem.tree.params


def _nearest(options: Sequence[LayerConfig], bits: float) -> str:
    return min((c.format for c in options), key=lambda f: abs(stored_bits(format_named(f)) - bits))


def _alone(base: Workload, format_name: str, rows: int, cols: int, activation_bits: int = 32) -> Workload:
    """One matrix, with the rest of the model's bytes beside it, so that it comes from the same cache."""
    nodes = _matrices(format_name, rows, cols, activation_bits=activation_bits)
    return Workload(nodes, 0, max(base.weight_bytes - sum(node.nbytes for node in nodes), 0) // 2)


def _matrices(
    format_name: str, rows: int, cols: int, layer: str = "", activation_bits: int = 32
) -> tuple[GraphNode, ...]:
    """The products of one layer: two where its format is decomposed, thin ones or a diagonal where it is corrected."""
    return tuple(_priced(work, layer, activation_bits) for work in format_named(format_name).work(rows, cols))


def _priced(work: Work, layer: str, activation_bits: int) -> GraphNode:
    """A matrix that no chain of nodes can measure yet is priced by its bits."""
    bits = 0
    if work.format and work.operator:
        widths = activation_widths(work.format)
        bits = activation_bits if activation_bits in widths else widths[0]
    return GraphNode(
        operator=work.operator or "Linear",
        format=work.format,
        rows=work.rows,
        cols=work.cols,
        nbytes=work.nbytes,
        activation_bits=bits,
        layer=layer,
        behind=follows(work.operator),
    )
