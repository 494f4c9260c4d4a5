"""Chains of nodes without a matrix, as small ONNX models: what a cost table is measured on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from onnx import NodeProto, helper

from exporters.formats.parts import Array
from exporters.microbenchmark_files import (
    NEXT,
    STATE,
    BenchmarkBlock,
    BenchmarkState,
    Microbenchmark,
    write_microbenchmark,
)
from exporters.ops.signatures import (
    ANCHORED_ATTENTION,
    ANCHORED_ATTENTION_INT8,
    CACHED_ATTENTION,
    CACHED_ATTENTION_HALF,
    CACHED_ATTENTION_INT8,
    DELTA_RULE,
    DOMAIN,
    GATED_SPIKE_ADD,
    GATED_WKV,
    INTEGRATE_FIRE,
    LIF,
    LINEAR_RECURRENCE,
    PLIF,
    RMS_NORM,
    SHIFT_MIX2,
    SHIFT_MIX3,
    SPIKE_ADD,
    SQUARED_RELU,
    WKV,
)

ATTENTION: Final = (CACHED_ATTENTION, CACHED_ATTENTION_HALF, CACHED_ATTENTION_INT8)
ANCHORED: Final = (ANCHORED_ATTENTION, ANCHORED_ATTENTION_INT8)


def _unary(operator: str) -> Callable[[str, str, int], list[NodeProto]]:
    return lambda x, y, i: [helper.make_node(operator, [x], [y])]


def _binary(operator: str, *constants: str) -> Callable[[str, str, int], list[NodeProto]]:
    return lambda x, y, i: [helper.make_node(operator, [x, *constants], [y])]


def _rms_norm(x: str, y: str, i: int) -> list[NodeProto]:
    return [helper.make_node(RMS_NORM.name, [x, "ones"], [y], domain=DOMAIN, epsilon=1e-5)]


def _shift(x: str, y: str, i: int) -> list[NodeProto]:
    return [
        helper.make_node("Unsqueeze", ["state", "at1"], [f"u{i}"]),
        helper.make_node("Concat", [f"u{i}", x], [f"c{i}"], axis=1),
        helper.make_node("Slice", [f"c{i}", "at1", "end", "at1"], [y]),
    ]


def _last(x: str, y: str, i: int) -> list[NodeProto]:
    return [
        helper.make_node("Gather", [x, "last"], [f"g{i}"], axis=1),
        helper.make_node("Unsqueeze", [f"g{i}", "at1"], [y]),
    ]


def _neuron(operator: str, inputs: list[str], outputs: list[str]) -> list[NodeProto]:
    return [helper.make_node(operator, inputs, outputs, domain=DOMAIN, tau=2.0, threshold=1.0, reset=0.0)]


def _lif(x: str, y: str, i: int) -> list[NodeProto]:
    return _neuron(LIF.name, [x, "state"], [y, f"m{i}"])


def _wkv(x: str, y: str, i: int) -> list[NodeProto]:
    states = [f"a{i}", f"b{i}", f"e{i}"]
    inputs = ["decay", "vector", x, x, "state", "state", "state"]
    return [helper.make_node(WKV.name, inputs, [y, *states], domain=DOMAIN)]


def _shift_mix(mixes: int) -> Callable[[str, str, int], list[NodeProto]]:
    name = {2: SHIFT_MIX2.name, 3: SHIFT_MIX3.name}[mixes]

    def link(x: str, y: str, i: int) -> list[NodeProto]:
        outputs = [y, *(f"y{j}_{i}" for j in range(1, mixes)), f"n{i}"]
        inputs = [x, "state", "ones", "vector", *["mix"] * mixes]
        return [helper.make_node(name, inputs, outputs, domain=DOMAIN, epsilon=1e-5)]

    return link


def _gated_wkv(x: str, y: str, i: int) -> list[NodeProto]:
    states = [f"a{i}", f"b{i}", f"e{i}"]
    inputs = ["decay", "vector", x, x, x, "state", "state", "state"]
    return [helper.make_node(GATED_WKV.name, inputs, [y, *states], domain=DOMAIN)]


def _spike_add(x: str, y: str, i: int) -> list[NodeProto]:
    return _neuron(SPIKE_ADD.name, [x, x, "state"], [y, f"m{i}"])


def _gated_spike_add(x: str, y: str, i: int) -> list[NodeProto]:
    return _neuron(GATED_SPIKE_ADD.name, [x, x, "state", x], [y, f"m{i}"])


def _integrate_fire(x: str, y: str, i: int) -> list[NodeProto]:
    inputs = [x, "one", "one"]
    return [helper.make_node(INTEGRATE_FIRE.name, inputs, [y], domain=DOMAIN, leak=0.5, ternary=0.0, soft=1.0)]


def _squared_relu(x: str, y: str, i: int) -> list[NodeProto]:
    """The first one's input is made small, so that squares of squares do not run away."""
    nodes = [helper.make_node(SQUARED_RELU.name, [x if i else "small"], [y], domain=DOMAIN)]
    return nodes if i else [helper.make_node("Mul", [x, "eighth"], ["small"]), *nodes]


def _plif(x: str, y: str, i: int) -> list[NodeProto]:
    how: dict[str, Any] = {"low": -3.0, "high": 3.0, "reset": 0.0, "soft": 0.0, "membranes": 0.0}
    return [helper.make_node(PLIF.name, [x, *["ones"] * 4, "state"], [y, f"m{i}"], domain=DOMAIN, **how)]


def _linear_recurrence(x: str, y: str, i: int) -> list[NodeProto]:
    return [helper.make_node(LINEAR_RECURRENCE.name, ["ones", x, "state"], [y, f"m{i}"], domain=DOMAIN)]


def _delta_rule(x: str, y: str, i: int) -> list[NodeProto]:
    inputs, outputs = [x, *["key"] * 5, f"{STATE}matrices{i}"], [y, f"{NEXT}matrices{i}"]
    return [helper.make_node(DELTA_RULE.name, inputs, outputs, domain=DOMAIN)]


def _anchored(operator: str) -> Callable[[str, str, int], list[NodeProto]]:
    """A ring without anchors."""
    scales = ("key_scales", "value_scales") if operator == ANCHORED_ATTENTION_INT8.name else ()

    def link(x: str, y: str, i: int) -> list[NodeProto]:
        caches, behind = ([f"{name}{i}" for name in names] for names in (("keys", "values"), scales))
        states, after = ([*(f"{at}{n}" for n in caches), *(f"{at}{n}" for n in behind)] for at in (STATE, NEXT))
        inputs = [x, "key", "key", "unit", *states[:2], "all_seen", *states[2:], "position"]
        outputs = [y, *after[:2], f"s{i}", *after[2:]]
        return [helper.make_node(operator, inputs, outputs, domain=DOMAIN, heads=0, anchors=0, theta=1.0)]

    return link


def _attention(operator: str) -> Callable[[str, str, int], list[NodeProto]]:
    """Caches are states, so that they stay where they are; rotary angles cost nothing of note and are left out."""
    caches = ("keys", "values", "key_scales", "value_scales")[: 4 if operator == CACHED_ATTENTION_INT8.name else 2]

    def link(x: str, y: str, i: int) -> list[NodeProto]:
        inputs = [x, "key", "key", *(f"{STATE}{name}{i}" for name in caches), "position"]
        outputs = [y, *(f"{NEXT}{name}{i}" for name in caches)]
        attributes: dict[str, Any] = {
            "heads": 0,
            "window": 0,
            "rotary": 0,
            "theta": 1.0,
            "rotate": 0.0,
            "scale": 0.0,
            "cap": 0.0,
        }
        return [helper.make_node(operator, inputs, outputs, domain=DOMAIN, **attributes)]

    return link


PLAIN_NODES: dict[str, tuple[tuple[str, ...], Callable[[str, str, int], list[NodeProto]]]] = {
    "Add": (("Add",), _binary("Add", "vector")),
    "Sub": (("Sub",), _binary("Sub", "vector")),
    "Mul": (("Mul",), _binary("Mul", "ones")),
    "Relu": (("Relu",), _unary("Relu")),
    "Sigmoid": (("Sigmoid",), _unary("Sigmoid")),
    "LayerNormalization": (("LayerNormalization",), _binary("LayerNormalization", "ones", "vector")),
    "RmsNorm": (("RmsNorm",), _rms_norm),
    "shift": (("Unsqueeze", "Concat", "Slice"), _shift),
    "last": (("Gather",), _last),
    "Lif": (("Lif",), _lif),
    "Wkv": (("Wkv",), _wkv),
    "ShiftMix2": (("ShiftMix2",), _shift_mix(2)),
    "ShiftMix3": (("ShiftMix3",), _shift_mix(3)),
    "GatedWkv": (("GatedWkv",), _gated_wkv),
    "SpikeAdd": (("SpikeAdd",), _spike_add),
    "GatedSpikeAdd": (("GatedSpikeAdd",), _gated_spike_add),
    "IntegrateFire": (("IntegrateFire",), _integrate_fire),
    "SquaredRelu": (("SquaredRelu",), _squared_relu),
    "Plif": (("Plif",), _plif),
    "LinearRecurrence": (("LinearRecurrence",), _linear_recurrence),
    "DeltaRule": (("DeltaRule",), _delta_rule),
    **{s.name: ((s.name,), _attention(s.name)) for s in ATTENTION},
    **{s.name: ((s.name,), _anchored(s.name)) for s in ANCHORED},
}
"""Nodes without a matrix: which operators a link of the benchmark is priced as, and its nodes.

Unsqueeze, Concat and Slice are timed together, a third each; Gather is timed with an Unsqueeze, which is nothing beside
it. Attention looks back at DEPTH tokens, with heads of HEAD channels. DeltaRule is priced by the entries of its states,
HEAD a channel; all others by their channels.
"""

DEPTH, SLOTS, HEAD = 160, 256, 64
"""Tokens that attention looks back at, as a measured token does on average; tokens that its caches have room for;
channels of a head. A width that HEAD does not divide is one head."""


def write_plain_benchmark(path: Path, name: str, width: int, count: int = 64) -> Microbenchmark:
    """x [1, 1, width] through so many links of `PLAIN_NODES[name]`."""
    operators, link = PLAIN_NODES[name]
    nodes = [node for i in range(count) for node in link(f"x{i}", f"x{i + 1}", i)]
    random = np.random.default_rng(0)
    constants: dict[str, Array] = {
        "vector": random.standard_normal(width, np.float32) / np.float32(8),
        "ones": np.ones(width, np.float32),
        "one": np.ones(1, np.float32),
        "eighth": np.full(1, 1 / 8, np.float32),
        "mix": np.full((1, 1, width), 0.5, np.float32),
        "decay": np.full(width, -1, np.float32),
        "state": np.zeros((1, width), np.float32),
        "unit": np.ones((1, 1), np.float32),
        "all_seen": np.ones((1, SLOTS), np.float32),
        "at1": np.array([1], np.int64),
        "end": np.array([2], np.int64),
        "last": np.array(-1, np.int64),
    }
    size = HEAD if width % HEAD == 0 else width
    constants |= {"key": constants["vector"][None, None], "position": np.array([[DEPTH]], np.int64)}
    for node in nodes:
        for attribute in node.attribute:
            if attribute.name == "heads":
                attribute.i = width // size
    used = {name for node in nodes for name in node.input}
    block = BenchmarkBlock({name: array for name, array in constants.items() if name in used}, 0, moved_axis=0)
    entries = width * size if name == DELTA_RULE.name else width
    priced = tuple((operator, entries, 1) for operator in operators)
    benchmark = Microbenchmark(
        path=path, width=width, priced=priced, format="", count=count, working_set_bytes=8 * width,
        tensors=block.rotated,
    )  # fmt: skip
    return write_microbenchmark(nodes, block, benchmark, _states(nodes, width // size, size))


def _states(nodes: Sequence[NodeProto], groups: int, size: int) -> list[BenchmarkState]:
    """Caches of nodes that attend, and states that are matrices, in the order of their inputs."""
    known = {s.name: s.inputs for s in (*ATTENTION, *ANCHORED, DELTA_RULE)}

    def shape(name: str) -> tuple[int, ...]:
        rows = size if "matrices" in name else SLOTS
        return (1, groups, rows) if "scales" in name else (1, groups, rows, size)

    return [
        BenchmarkState(name, name.replace(STATE, NEXT, 1), shape(name), p.type)
        for node in nodes
        for name, p in zip(node.input, known.get(node.op_type, ()), strict=False)
        if name.startswith(STATE)
    ]
