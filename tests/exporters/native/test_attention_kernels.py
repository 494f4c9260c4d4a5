"""Attention over a cache in ONNX Runtime against float64, on every instruction set that this machine has."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
import pytest
from one_node import opened
from onnx import TensorProto, helper
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from exporters.ops.signatures import DOMAIN, VERSION

OPERATORS = ("CachedAttention", "CachedAttentionHalf", "CachedAttentionInt8")
TOLERANCE = {"CachedAttention": 2e-5, "CachedAttentionHalf": 2e-5, "CachedAttentionInt8": 1e-3}
"""Of outputs of up to 2.5 at scores of up to about 20. Queries of up to 12 in 14 bits are off by 2e-4 (root mean
square), and so are their scores and the shares."""


@dataclass(frozen=True)
class Call:
    """New tokens and a cache whose first `before` slots are filled; what stands behind them must not matter."""

    operator: str
    heads: int
    groups: int
    width: int
    time: int
    before: int
    spare: int = 0
    rotate: float = 0.0
    options: tuple[tuple[str, float], ...] = ()  # without them the node is one of before they existed

    def option(self, name: str) -> float:
        return dict(self.options).get(name, 0)

    def inputs(self) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([self.heads, self.width, self.time, self.before])
        given = {
            name: rng.normal(0, size, (1, self.time, heads * self.width)).astype(np.float32)
            for name, heads, size in (("q", self.heads, 3), ("k", self.groups, 1), ("v", self.groups, 1))
        }
        slots = (1, self.groups, self.before + self.time + self.spare)
        for name in ("keys", "values"):
            if self.operator != "CachedAttentionInt8":
                kind = np.float16 if self.operator.endswith("Half") else np.float32
                given[name] = rng.normal(0, 1, (*slots, self.width)).astype(kind)
                given[name][:, :, self.before :] = np.nan
            else:
                given[name] = rng.integers(-127, 128, (*slots, self.width)).astype(np.int8)
        for name in ("key_scales", "value_scales") if self.operator == "CachedAttentionInt8" else ():
            given[name] = rng.uniform(0.002, 0.02, slots).astype(np.float32)
            given[name][:, :, self.before :] = np.nan
        return given | {"position": np.array([[self.before]])}

    def session(self, threads: int = 1) -> ort.InferenceSession:
        kinds_of = {"Half": TensorProto.FLOAT16, "Int8": TensorProto.INT8}
        kind = kinds_of.get(self.operator[-4:], TensorProto.FLOAT)
        caches = ["keys", "values", *(["key_scales", "value_scales"] if kind == TensorProto.INT8 else [])]
        outputs = ["y", *(f"{name}_out" for name in caches)]
        names = ["q", "k", "v", *caches, "position"]
        node = helper.make_node(
            self.operator, names, outputs, domain=DOMAIN, heads=self.heads, theta=1e4, rotate=self.rotate,
            **dict(self.options),
        )  # fmt: skip
        kinds = {name: kind if name.split("_")[0] in ("keys", "values") else TensorProto.FLOAT for name in names}
        kinds |= {"position": TensorProto.INT64}
        graph = helper.make_graph(
            [node],
            "one",
            [helper.make_tensor_value_info(name, kinds[name], None) for name in names],
            [helper.make_tensor_value_info(n, kinds.get(n.removesuffix("_out"), TensorProto.FLOAT), None)
             for n in outputs],
        )  # fmt: skip
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, VERSION)]
        return opened(helper.make_model(graph, opset_imports=opsets, ir_version=10), threads)

    def expected(self, after: dict[str, np.ndarray], q: np.ndarray) -> np.ndarray:
        """Of the caches as they stand after the call, in float64."""
        keys, values = (after[name].astype(np.float64)[0] for name in ("keys", "values"))
        if self.operator == "CachedAttentionInt8":
            keys *= after["key_scales"][0, ..., None]
            values *= after["value_scales"][0, ..., None]
        queries = q.astype(np.float64).reshape(self.time, self.heads, self.width)
        y = np.empty_like(queries)
        for t in range(self.time):
            seen = self.before + t + 1
            first = max(0, seen - int(self.option("window") or seen))
            for head in range(self.heads):
                group = head // (self.heads // self.groups)
                scores = keys[group, first:seen] @ queries[t, head] * (self.option("scale") or self.width**-0.5)
                if cap := self.option("cap"):
                    scores = cap * np.tanh(scores / cap)
                shares = np.exp(scores - scores.max())
                y[t, head] = shares @ values[group, first:seen] / shares.sum()
        return y.reshape(1, self.time, -1)


def check(call: Call, threads: int = 1) -> list[np.ndarray]:
    given = call.inputs()
    names = ["y", *(name for name in given if name not in ("q", "k", "v", "position"))]
    found = call.session(threads).run(None, given)
    after = dict(zip(names, found, strict=True))
    for name in names[1:]:
        np.testing.assert_array_equal(after[name][:, :, : call.before], given[name][:, :, : call.before])
    np.testing.assert_allclose(after["y"], call.expected(after, given["q"]), atol=TOLERANCE[call.operator])
    return found


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("width", [4, 16, 24, 48, 64, 80, 128, 528])
@pytest.mark.parametrize("time", [1, 5])
def test_widths(isa, operator, width, time):
    check(Call(operator, 2, 1, width, time, 70, spare=3))


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("before", [0, 2, 63, 64, 511, 512, 1500])
@pytest.mark.parametrize("time", [1, 2, 70])
def test_lengths(isa, operator, before, time):
    """Blocks and stretches that end at the cache's last slot, and before it."""
    check(Call(operator, 3, 1, 32, time, before, spare=before % 2))


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize(("heads", "groups"), [(1, 1), (9, 3), (8, 8), (120, 1)], ids=str)
@pytest.mark.parametrize("time", [1, 40])
def test_grouped_heads(isa, operator, heads, groups, time):
    check(Call(operator, heads, groups, 16, time, 30))


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("window", [1, 3, 64, 65, 700, 5000])
@pytest.mark.parametrize(("time", "before"), [(1, 0), (1, 1100), (5, 62), (200, 0), (150, 600)])
def test_windows(isa, operator, window, time, before):
    """What stands before all windows is not looked at."""
    call = Call(operator, 6, 2, 16, time, before, options=(("window", window),))
    given = check(call)
    if before > window:
        other = call.inputs()
        for name in other.keys() - {"q", "k", "v", "position"}:
            other[name][:, :, : before - window] = 0
        np.testing.assert_array_equal(call.session().run(None, other)[0], given[0])


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("options", [{"cap": 5.0}, {"scale": 0.02}, {"cap": 50.0, "scale": 0.3, "window": 40}], ids=str)
@pytest.mark.parametrize("time", [1, 40])
def test_scales_and_caps(isa, operator, options, time):
    check(Call(operator, 4, 2, 32, time, 100, options=tuple(options.items())))


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("time", [1, 130])
def test_threads_change_nothing(isa, operator, time):
    call = Call(operator, 6, 2, 64, time, 1100)
    for one, two in zip(check(call), check(call, threads=2), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("operator", OPERATORS)
def test_pieces_are_the_whole(isa, operator):
    """The caches to the last bit, the outputs up to the order of their sums."""
    call = Call(operator, 6, 2, 64, 600, 0)
    given, session = call.inputs(), call.session()
    whole, parts, state = session.run(None, given), [], given
    for start, stop in [(0, 1), (1, 200), (200, 201), (201, 600)]:
        new = {name: given[name][:, start:stop] for name in ("q", "k", "v")}
        y, *caches = session.run(None, state | new | {"position": np.array([[start]])})
        state = dict(zip([n for n in given if n not in ("q", "k", "v", "position")], caches, strict=True))
        parts.append(y)
    for one, other in zip(caches, whole[1:], strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(np.concatenate(parts, 1), whole[0], atol=TOLERANCE[operator])


@pytest.mark.parametrize("operator", OPERATORS)
def test_scores_may_be_far_apart(isa, operator):
    """One slot has everything: e^-200 of the others is nothing, and nothing overflows."""
    call = Call(operator, 2, 1, 32, 1, 100)
    given = call.inputs()
    given["q"] *= 1000
    y, *_ = call.session().run(None, given)
    assert np.isfinite(y).all() and (np.abs(y) <= 127 * 0.02 + 4).all()


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_no_number_is_not_hidden(isa, operator, wrong):
    call = Call(operator, 2, 1, 32, 2, 5)
    given = call.inputs()
    given["q"][0, 1, 40] = wrong
    y, *_ = call.session().run(None, given)
    assert np.isfinite(y[0, 0]).all() and np.isfinite(y[0, 1, :32]).all() and np.isnan(y[0, 1, 32:]).all()


@pytest.mark.parametrize("operator", OPERATORS)
def test_values_that_are_all_zero(isa, operator):
    call = Call(operator, 2, 1, 32, 3, 0)
    y, *_ = call.session().run(None, call.inputs() | {"v": np.zeros((1, 3, 32), np.float32)})
    np.testing.assert_array_equal(y, 0)


@pytest.mark.parametrize("rotate", [0.0, 1.0])
def test_a_node_that_rotates_keeps_to_one_width(rotate):
    narrow, wide = (Call("CachedAttention", 2, 1, width, 1, 3, rotate=rotate) for width in (16, 32))
    session = narrow.session()
    session.run(None, narrow.inputs())
    if not rotate:
        session.run(None, wide.inputs())
        return
    with pytest.raises(InvalidArgument, match="heads are 32 wide, those of an earlier call 16"):
        session.run(None, wide.inputs())


@pytest.mark.parametrize(("in_place", "told"), [(False, 1), (True, 0)], ids=["copied", "in place"])
def test_copies_of_large_caches_are_told_once(in_place, told):
    """In a process of its own, twice; 1 MiB is the least that is told."""
    program = f"""
import runpy
import onnxruntime as ort
call = runpy.run_path({__file__!r})["Call"]("CachedAttention", 1, 1, 64, 1, 4200)
session, binding, given = call.session(), None, call.inputs()
binding = session.io_binding()
for name, array in given.items():
    value = ort.OrtValue.ortvalue_from_numpy(array)
    binding.bind_ortvalue_input(name, value)
    if name in ("keys", "values") and {in_place}:
        binding.bind_ortvalue_output(name + "_out", value)
for output in session.get_outputs():
    if output.name == "y" or not {in_place}:
        binding.bind_output(output.name)
for _ in range(2):
    session.run_with_iobinding(binding)
"""
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert done.stderr.count("attention copies whole caches at every call") == told
    assert done.stderr.count("\n") == told


def test_no_groups_are_refused():
    call = Call("CachedAttention", 2, 1, 16, 1, 3)
    given = call.inputs()
    none = {"k": np.zeros((1, 1, 0), np.float32), "v": np.zeros((1, 1, 0), np.float32)}
    caches = {name: np.zeros((1, 0, 4, 16), np.float32) for name in ("keys", "values")}
    with pytest.raises(InvalidArgument, match="2 heads cannot share 0 groups"):
        call.session().run(None, given | none | caches)
