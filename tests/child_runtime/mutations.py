"""Models of one operator bent out of shape: wrong sizes, ranks, types, attributes and contents, drawn by a seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper, numpy_helper

Feeds = dict[str, np.ndarray]
Rng = np.random.Generator

TYPES = (np.float32, np.float16, np.uint8, np.int64, np.float64, np.int32, np.bool_)
INTEGERS = (0, -1, 1, 2, 3, 7, 8, 9, 16, 31, 32, 64, 100, 128, 2**15, 2**31 - 1, 2**31, 2**32 + 1, 2**62, -(2**63))
NUMBERS = (0.0, -0.0, -1.0, 1e-30, 1e30, float("inf"), float("nan"))


def mutate(rng: Rng, model: onnx.ModelProto, feeds: Feeds) -> tuple[onnx.ModelProto, Feeds]:
    """A copy with one to three changes; inputs follow the feeds' types and ranks most of the time."""
    changed, fed = onnx.ModelProto(), dict(feeds)
    changed.CopyFrom(model)
    for _ in range(rng.integers(1, 4)):
        _CHANGES[rng.integers(len(_CHANGES))](rng, changed, fed)
    if rng.random() < 0.9:
        _declare(changed, fed)
    if rng.random() < 0.1:  # last: nothing else can read such a weight
        _truncate_a_weight(rng, changed)
    return changed, fed


def tame(model: onnx.ModelProto, feeds: Feeds) -> bool:
    """Whether every number is finite and small, so that all ways to compute must agree."""
    try:
        arrays = [*feeds.values(), *(numpy_helper.to_array(i) for i in model.graph.initializer)]
    except ValueError:  # a truncated one that the node does not use
        return False
    with np.errstate(invalid="ignore"):
        return all(a.dtype.kind != "f" or bool((np.abs(a) < 1e3).all()) for a in arrays)


def _resize(rng: Rng, array: np.ndarray) -> np.ndarray:
    """One dimension longer, shorter or empty."""
    if array.ndim == 0:
        return array.reshape(1)
    shape = list(array.shape)
    axis = rng.integers(array.ndim)
    shape[axis] = int(rng.choice([0, 1, shape[axis] - 1, shape[axis] + 1, 2 * shape[axis], rng.integers(1, 300)]))
    return _filled(array, tuple(max(0, d) for d in shape))


def _rerank(rng: Rng, array: np.ndarray) -> np.ndarray:
    """A dimension more or less, up to more than any operator takes."""
    more = int(rng.choice([-1, 1, 2, 9]))
    if more < 0:
        return array.reshape(array.shape[1:]) if array.ndim and array.shape[0] == 1 else array.reshape(-1)
    return array.reshape((1,) * more + array.shape)


def _retype(rng: Rng, array: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", over="ignore"):
        return array.astype(TYPES[rng.integers(len(TYPES))])


def _refill(rng: Rng, array: np.ndarray) -> np.ndarray:
    """The same shape with other contents: any bytes, or numbers at the edge."""
    if rng.random() < 0.5 and array.dtype != np.bool_:
        return np.frombuffer(rng.bytes(array.nbytes), array.dtype).reshape(array.shape)
    edges = NUMBERS if array.dtype.kind == "f" else INTEGERS
    with np.errstate(over="ignore"):
        return rng.choice(np.array(edges), array.shape).astype(array.dtype)


def _filled(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    wanted = int(np.prod(shape, dtype=np.int64))
    return np.resize(array if array.size else np.zeros(1, array.dtype), wanted).reshape(shape)


_ARRAYS: tuple[Callable[[Rng, np.ndarray], np.ndarray], ...] = (_resize, _resize, _rerank, _retype, _refill)


def _change_array(rng: Rng, model: onnx.ModelProto, feeds: Feeds) -> None:
    """A weight or an input."""
    change, held = _ARRAYS[rng.integers(len(_ARRAYS))], len(model.graph.initializer)
    at = int(rng.integers(held + len(feeds))) if held + len(feeds) else -1
    if 0 <= at < held:
        tensor = model.graph.initializer[at]
        tensor.CopyFrom(numpy_helper.from_array(change(rng, numpy_helper.to_array(tensor)), tensor.name))
    elif at >= 0:
        name = list(feeds)[at - held]
        feeds[name] = change(rng, feeds[name])


def _change_attribute(rng: Rng, model: onnx.ModelProto, feeds: Feeds) -> None:
    """Another value, another type, or none."""
    node = _node(rng, model)
    if not node.attribute:
        return
    attribute = node.attribute[rng.integers(len(node.attribute))]
    chance = rng.random()
    if chance < 0.1:
        node.attribute.remove(attribute)
    elif chance < 0.2:
        other = "text" if rng.random() < 0.5 else [1, 2]
        attribute.CopyFrom(helper.make_attribute(attribute.name, other))
    elif attribute.type == onnx.AttributeProto.INT:
        near = min(max(attribute.i + int(rng.integers(-8, 9)), -(2**63)), 2**63 - 1)
        attribute.i = int(near if rng.random() < 0.5 else INTEGERS[rng.integers(len(INTEGERS))])
    elif attribute.type == onnx.AttributeProto.FLOAT:
        attribute.f = float(NUMBERS[rng.integers(len(NUMBERS))])


def _leave_out(rng: Rng, model: onnx.ModelProto, feeds: Feeds) -> None:
    """An input, or an output."""
    node = _node(rng, model)
    names = node.input if rng.random() < 0.8 else node.output
    if len(names) and rng.random() < 0.5:
        names[rng.integers(len(names))] = ""
    elif len(names) > 1:
        names.pop()


def _swap_inputs(rng: Rng, model: onnx.ModelProto, feeds: Feeds) -> None:
    node = _node(rng, model)
    if len(node.input) > 1:
        a, b = rng.integers(len(node.input), size=2)
        node.input[a], node.input[b] = node.input[b], node.input[a]


def _feed_a_weight(rng: Rng, model: onnx.ModelProto, feeds: Feeds) -> None:
    """A weight that comes at run time."""
    held = model.graph.initializer
    if len(held):
        tensor = held[rng.integers(len(held))]
        feeds[tensor.name] = numpy_helper.to_array(tensor)
        held.remove(tensor)


def _truncate_a_weight(rng: Rng, model: onnx.ModelProto) -> None:
    """Fewer or more bytes than the shape says."""
    held = model.graph.initializer
    if len(held):
        tensor = held[rng.integers(len(held))]
        raw = tensor.raw_data
        tensor.raw_data = raw[: rng.integers(len(raw) + 1)] if rng.random() < 0.7 else raw + b"\0" * 64


_CHANGES: tuple[Callable[[Rng, onnx.ModelProto, Feeds], None], ...] = (
    _change_array,
    _change_array,
    _change_array,
    _change_attribute,
    _change_attribute,
    _leave_out,
    _swap_inputs,
    _feed_a_weight,
)


def _node(rng: Rng, model: onnx.ModelProto) -> onnx.NodeProto:
    return model.graph.node[rng.integers(len(model.graph.node))]


def _declare(model: onnx.ModelProto, feeds: Feeds) -> None:
    """Graph inputs as the feeds are, with sizes left open; outputs of any shape."""
    del model.graph.input[:]
    for name, array in feeds.items():
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        model.graph.input.append(helper.make_tensor_value_info(name, kind, [None] * array.ndim))
