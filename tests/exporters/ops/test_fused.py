"""Fused nodes: their text, every reading against hand-computed cases and against the steps as nodes of their own."""

from __future__ import annotations

import math
import re

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from driven import Refused
from fused import STANDARD_IN_TORCH, fed_array, fused_model, model_of, plain_model
from onnx import helper

from exporters.artifact.errors import SlmcError
from exporters.formats.catalog import format_named
from exporters.ops.signatures import DOMAIN, FUSED, SIGNATURES
from exporters.ops.steps import FUSIBLE, NORMS, STANDARD, STEPS, Step, Steps, follows, read_steps

RNG_SEED = 17
K = 70


def floats(*rows: object) -> np.ndarray:
    return np.array(rows, np.float32)


# --- the text --------------------------------------------------------------------------------------------------------

NORM = Step("RmsNorm", ("x", "weight"), ("n",), {"epsilon": 0.5})
PRODUCT = Step("QLinear", ("n", "codes", "scales", "", "zeros"), ("p",), {"K": 8, "bits": 4})
GELU = Step("Gelu", ("p",), ("g",), {"approximate": "tanh"})
SUM = Step("Add", ("g", "x"), ("y",), {})
TEXT = (
    "RmsNorm i0 i1 epsilon=0x1.0000000000000p-1\nQLinear v0 i2 i3 - i4 K=8 bits=4\nGelu v1 approximate=tanh\n"
    "Add v2 i0\nout v3 v1"
)


def test_text_by_hand():
    what = Steps(("x", "weight", "codes", "scales", "zeros"), (NORM, PRODUCT, GELU, SUM), ("y", "p"))
    assert what.text() == TEXT


def test_text_is_read_as_written():
    found = read_steps(TEXT, 5)
    assert found.text() == TEXT and found.outputs == ("v3", "v1")
    assert [step.attributes for step in found.steps] == [s.attributes for s in (NORM, PRODUCT, GELU, SUM)]


@pytest.mark.parametrize("value", [1e-5, 0.1, -3.0, 0.0, 1.5e-45, 3.4e38])
def test_floats_lose_nothing(reading, value):
    """A neuron that fires at the threshold itself, and not at the number before; the library reads texts by itself."""
    value = float(np.float32(value))
    text = f"SpikeAdd i0 i1 i2 tau={(1.0).hex()} threshold={value.hex()} reset=0x0p+0\nout v0 v1"
    assert read_steps(text, 3).steps[0].attributes == {"tau": 1.0, "threshold": value, "reset": 0.0}
    below = np.nextafter(np.float32(value), np.float32(-np.inf))
    current = np.array([below, value], np.float32).reshape(1, 1, 2)
    inputs = {"x": np.zeros((1, 1, 2), np.float32), "x1": current, "x2": np.zeros((1, 2), np.float32)}
    total, membrane = reading(FUSED, inputs, {STEPS: text})
    assert total.tolist() == [[[0, 1]]] and membrane.tolist() == [[below, 0]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "''"),
        ("out v0", "'out v0'"),
        ("Relu i0", "'Relu i0'"),
        ("Nothing i0\nout v0", "'Nothing'"),
        ("CachedAttention i0 i0 i0 i0 i0 i0\nout v0", "'CachedAttention'"),
        ("Relu i2\nout v0", "'Relu i2'"),
        ("Relu v0\nout v0", "'Relu v0'"),
        ("Relu i0\nout v1", "'out v1'"),
        ("Relu i0\ngive v0", "'give v0'"),
    ],
)
def test_text_that_is_none(text, words):
    with pytest.raises(SlmcError, match=f"model.onnx: a fused node .*{re.escape(words)}.*; copy the artifact again"):
        read_steps(text, 2)


def test_steps_that_may_be():
    assert set(STANDARD) == set(STANDARD_IN_TORCH)
    assert {signature.name for signature in SIGNATURES} >= FUSIBLE
    assert FUSIBLE | set(STANDARD) > NORMS
    assert follows("QLinear") and follows("Add") and not follows("RmsNorm") and not follows("Gather")


# --- every reading ---------------------------------------------------------------------------------------------------

# the norm of (3, 4) is (3, 4) / sqrt(12.5), of (0.6, 0.8) times sqrt 2; twice the first less the second, plus 1
HALF = np.array([[2, -1]], np.float16)
ROOT = math.sqrt(12.5)
BY_HAND = {
    "norm, product, bias": (
        "RmsNorm i0 i1 epsilon=0x0p+0\nHalfLinear v0 i2\nAdd v1 i3\nout v2",
        {"x": floats([[3, 4], [4, 3]]), "weight": np.ones(2, np.float32), "w": HALF, "b": np.ones(1, np.float32)},
        [floats([[2 / ROOT + 1], [5 / ROOT + 1]])],
    ),
    "one of both orders, and a number": (
        "Mul i1 i0\nAdd v0 i2\nMul i2 v1\nout v2 v0",
        {"x": floats([[1, 2], [3, 4]]), "vector": floats(10, 20), "number": np.array(2, np.float32)},
        [floats([[24, 84], [64, 164]]), floats([[10, 40], [30, 80]])],
    ),
    "negative and positive": (
        "Relu i0\nSigmoid i0\nMul v0 v1\nout v2",
        {"x": floats([[-1, math.log(3)]])},
        [floats([[0, 0.75 * math.log(3)]])],
    ),
    "the normal distribution": (
        "Gelu i0 approximate=none\nGelu i0 approximate=tanh\nout v0 v1",
        {"x": floats([[-1, 0, 2]])},
        [floats([[-0.15865525, 0, 1.95449974]]), floats([[-0.15880801, 0, 1.95459769]])],
    ),
    "a layer norm": (
        "LayerNormalization i0 i1 i2 epsilon=0x0p+0\nout v0",
        {"x": floats([[1, 3], [8, 4]]), "weight": floats(2, 3), "bias": floats(1, 0)},
        [floats([[-1, 3], [3, -3]])],
    ),
    # v = 0.5 of current 1; sigmoid(0) current 4 = 2, 0.5 + 0.75 = 1.25, a spike
    "a gate into spikes": (
        "Mul i1 i4\nGatedSpikeAdd i0 v0 i2 i3 tau=0x1p+1 threshold=0x1p+0 reset=0x0p+0\nout v1 v2",
        {"x": floats([[7], [7]]), "x1": floats([[1], [2]]), "x2": floats([0]), "x3": floats([[0], [0]]),
         "number": np.array([2], np.float32)},
        [floats([[7], [8]]), floats([0])],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(reading, name):
    text, inputs, expected = BY_HAND[name]
    for found, wanted in zip(reading(FUSED, inputs, {STEPS: text}), expected, strict=True):
        assert found.dtype == np.float32
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=2e-6)


def product(name: str, rows: int, bits: int, at: int, x: str) -> tuple[str, dict[str, np.ndarray]]:
    """A step that multiplies x with a random matrix [rows, K]; its packed tensors are inputs from number `at` on."""
    weight = np.random.default_rng([RNG_SEED, rows, at]).normal(0, 1, (rows, K)).astype(np.float32)
    fmt = format_named(name)
    (term,) = fmt.product(fmt.encode(weight)).terms
    (node,) = term.nodes
    signature = next(s for s in SIGNATURES if s.name == node.operator)
    attributes = {**node.attributes, "activation_bits": bits if fmt.input_group(K) else 32}
    packed = {f"{n}{at}": node.packed[n] for n in node.inputs if n in node.packed}
    words, number = [], at
    for n in node.inputs:
        words.append(f"i{number}" if n in node.packed else "-")
        number += n in node.packed
    while words[-1] == "-":
        words.pop()
    said = " ".join(f"{n}={attributes[n]}" for n in signature.ints)
    return f"{node.operator} {x} {' '.join(words)} {said}".strip(), packed


MIXES = {
    "alike": (("int4-g64", 40, 8), ("int4-g64", 20, 8), ("int4-g64", 17, 8)),
    "alike, whole inputs": (("int8", 33, 32), ("int8", 7, 32)),
    "all kinds": (("int4-g64", 40, 8), ("int8", 33, 8), ("fp16", 20, 32), ("2:4/int4-g64", 32, 8),
                  ("event/int4-g64", 9, 32), ("uint4-g64", 16, 8), ("int4-g64", 16, 32)),
    "sparse": (("2:4/int4-g64", 32, 8), ("2:4/int8", 48, 8), ("4:8x16/int4", 32, 8), ("2:4/int4-g64", 16, 32),
               ("2:4/int4-g64", 48, 32)),
    "more than go together": tuple(("int4-g64", 5 + i, 8) for i in range(11)),
}  # fmt: skip


def side_by_side(name: str, tokens: int) -> tuple[str, dict[str, np.ndarray]]:
    """A norm, products that read it, and another of the first product's gate; all products go out."""
    rng = np.random.default_rng(RNG_SEED)
    inputs = {
        "x": rng.normal(0, 2, (1, tokens, K)).astype(np.float32),
        "weight": rng.normal(1, 0.2, K).astype(np.float32),
    }
    lines = ["RmsNorm i0 i1 epsilon=0x1p-10"]
    for kind, rows, bits in MIXES[name]:
        line, packed = product(kind, rows, bits, len(inputs), "v0")
        inputs |= packed
        lines.append(line)
    last = len(MIXES[name])
    lines += ["Sigmoid v1", f"Mul v1 v{last + 1}", "Add v0 i0"]
    return "\n".join((*lines, " ".join(("out", *(f"v{i}" for i in range(1, last + 4) if i != last + 1))))), inputs


def run(model: onnx.ModelProto, library: str, inputs: dict[str, np.ndarray], threads: int = 1) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.register_custom_ops_library(library)
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {i.name: fed_array(i.name, inputs) for i in session.get_inputs()})


@pytest.mark.parametrize("tokens", [1, 12])
@pytest.mark.parametrize("name", MIXES)
def test_products_side_by_side_in_every_reading(reading, definition, name, tokens):
    text, inputs = side_by_side(name, tokens)
    found = reading(FUSED, inputs, {STEPS: text})
    expected = definition(FUSED, inputs, {STEPS: text})
    for y, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=2e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("tokens", [1, 12])
@pytest.mark.parametrize("name", MIXES)
def test_kernels_do_what_they_do_as_nodes_of_their_own(native_path, name, tokens):
    """To the last bit, on one thread and on three; standard steps are the runtime's own there, so products alone."""
    text, inputs = side_by_side(name, tokens)
    count = len(MIXES[name])
    one, three = (run(fused_model(text, inputs), native_path, inputs, threads) for threads in (1, 3))
    plain = run(plain_model(text, inputs), native_path, inputs)
    for i in range(count):
        np.testing.assert_array_equal(one[i], plain[i])
    for a, b in zip(one, three, strict=True):
        np.testing.assert_array_equal(a, b)


# --- what is refused -------------------------------------------------------------------------------------------------

TWO = {"x": floats([[1, 2]]), "weight": floats(1, 1)}
BYTES = {"x": floats([[1, 2]]), "weight": np.ones(2, np.uint8)}


@pytest.mark.parametrize(
    ("text", "inputs", "words"),
    [
        ("", TWO, "'steps' has a line that is not known: ''"),
        ("out v0", TWO, "'out v0'"),
        ("Nothing i0\nout v0", TWO, "'Nothing i0'"),
        ("Fused i0\nout v0", TWO, "'Fused i0'"),
        ("CachedAttentionInt8 i0 i0 i0 i0 i0 i0 i0 i0\nout v0", TWO, "'CachedAttentionInt8 i0"),
        ("Relu v0\nout v0", TWO, "'Relu v0'"),
        ("Relu i\nout v0", TWO, "'Relu i'"),
        ("Relu i99999\nout v0", TWO, "'Relu i99999'"),
        ("Relu i0\nout v0 v0", TWO, "'out v0 v0'"),
        ("Relu i0\nout i0", TWO, "'out i0'"),
        ("Relu i0\nout", TWO, "'out'"),
        ("Relu\nout v0", TWO, "input 'x' is missing"),
        ("Relu -\nout v0", TWO, "input 'x' is missing"),
        ("Relu i0 i1\nout v0", TWO, "more inputs or outputs than the operator has"),
        ("Relu i2\nout v0", TWO, "input 2 is missing|index"),
        ("RmsNorm i0 i1\nout v0", TWO, "RmsNorm: attribute 'epsilon' is missing"),
        ("RmsNorm i0 i1 epsilon=0.5\nout v0", TWO, "'epsilon' is missing"),
        ("RmsNorm i0 i1 epsilon=0x1q5\nout v0", TWO, "'epsilon' is missing"),
        ("RmsNorm i0 i1 epsilon=-0x1p+0\nout v0", TWO, "is negative"),
        ("RmsNorm i0 i1 epsilon=0x0p+0\nout v0", BYTES, "RmsNorm: input 'weight' has another type"),
        ("QLinear i0 i1 i1 K=2 N=1x bits=4 group=8\nout v0", TWO, "QLinear: attribute 'N' is missing"),
        ("QLinear i0 i1 i1 K=2 N=1 bits=4 group=8\nout v0", TWO, "QLinear: input 'codes' has another type"),
        ("Add i0 i1\nout v0", {"x": floats([[1, 2]]), "x1": floats([1, 2, 3])}, "Add: its inputs are"),
    ],
)  # fmt: skip
def test_refusals(native_path, driver, text, inputs, words):
    """By the library, and by our own runtime with the same words."""
    what = Steps(tuple(f"i{i}" for i in range(len(inputs))), (), ("y",))
    node = helper.make_node(FUSED, what.inputs, ["y"], domain=DOMAIN, **{STEPS: text})
    model = model_of([node], [], inputs, ("y",))
    with pytest.raises(Exception, match=words) as caught:
        run(model, native_path, inputs)
    assert type(caught.value).__module__.startswith("onnxruntime")
    fed = {i.name: fed_array(i.name, inputs) for i in model.graph.input}
    with pytest.raises(Refused, match=words):
        driver.run(model.SerializeToString(), fed, ["y"])
