"""Cached attention against the textbook's in float64, in one call and in pieces, and at the end of its context."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException

from exporters.artifact.errors import SlmcError
from exporters.ops.attention import cached_attention, cached_attention_int8

HEADS, GROUPS, WIDTH, LENGTH, TIME, THETA = 6, 2, 8, 13, 11, 50.0
KINDS = {
    "CachedAttention": ("keys", "values"),
    "CachedAttentionHalf": ("keys", "values"),
    "CachedAttentionInt8": ("keys", "values", "key_scales", "value_scales"),
}
LAST_DIGITS = {np.dtype(np.float32): 2e-3, np.dtype(np.float16): 2e-3, np.dtype(np.int8): 1}
TYPES = {"CachedAttention": np.float32, "CachedAttentionHalf": np.float16, "CachedAttentionInt8": np.int8}


def inputs(time: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    sizes = {"q": HEADS, "k": GROUPS, "v": GROUPS}
    return {name: rng.normal(0, 1, (1, time, n * WIDTH)).astype(np.float32) for name, n in sizes.items()}


def empty(operator: str) -> dict[str, np.ndarray]:
    """Caches before the first token; whatever stands in them must not matter."""
    caches = {name: np.full((1, GROUPS, LENGTH, WIDTH), 9, TYPES[operator]) for name in ("keys", "values")}
    scales = {name: np.full((1, GROUPS, LENGTH), 9, np.float32) for name in KINDS[operator][2:]}
    return caches | scales | {"position": np.array([[0]])}


def attributes(**given: float) -> dict[str, float]:
    plain = {"window": 0, "rotary": 0, "theta": THETA, "rotate": 0.0, "scale": 0.0, "cap": 0.0}
    return {"heads": HEADS, **plain, **given}


def angles(time: int, width: int) -> np.ndarray:
    """Of every token and pair of the first `width` channels, [T, width / 2]."""
    return np.arange(time)[:, None] * THETA ** (-2.0 * np.arange(width // 2) / width)


def turned(x: np.ndarray, width: int) -> np.ndarray:
    """The first channels of x [T, n, d] as complex numbers, each times e^(i position angle), back as reals."""
    first, second, still = np.split(x, [width // 2, width], -1)
    z = (first + 1j * second) * np.exp(1j * angles(len(x), width))[:, None]
    return np.concatenate([z.real, z.imag, still], -1)


def textbook(q: np.ndarray, k: np.ndarray, v: np.ndarray, how: dict[str, float]) -> np.ndarray:
    q, k, v = (x[0].astype(np.float64).reshape(len(x[0]), -1, WIDTH) for x in (q, k, v))
    if how["rotate"]:
        q, k = (turned(x, int(how["rotary"] or WIDTH)) for x in (q, k))
    y = np.empty_like(q)
    for t in range(len(q)):
        first = max(0, t + 1 - int(how["window"])) if how["window"] else 0
        for h in range(HEADS):
            g = h // (HEADS // GROUPS)
            scores = k[first : t + 1, g] @ q[t, h] * (how["scale"] or 1 / np.sqrt(WIDTH))
            weights = np.exp(how["cap"] * np.tanh(scores / how["cap"]) if how["cap"] else scores)
            y[t, h] = weights @ v[first : t + 1, g] / weights.sum()
    return y.reshape(1, len(q), -1)


OPTIONS = {
    "plain": {},
    "rotary": {"rotate": 1.0},
    "rotary part": {"rotate": 1.0, "rotary": 4},
    "window": {"window": 3, "rotate": 1.0},
    "window of one": {"window": 1},
    "wide window": {"window": 100},
    "cap": {"cap": 1.5, "scale": 0.7},
    "all": {"cap": 3.0, "scale": 0.2, "window": 6, "rotary": 6, "rotate": 1.0},
}
BLOCKS = {"CachedAttentionInt8": (0, 4, 8)}
"""Channels that are mixed before they are rounded; 0 alone for operators that round to no codes."""


def of(operator: str, how: dict[str, float], block: int = 0) -> dict[str, float]:
    """With the attribute that codes alone have."""
    return how | ({"hadamard": block} if operator in BLOCKS else {})


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize(
    ("operator", "block", "tolerance"),
    [("CachedAttention", 0, 3e-6), ("CachedAttentionHalf", 0, 2e-3)]
    + [("CachedAttentionInt8", block, 0.05) for block in BLOCKS["CachedAttentionInt8"]],
)
@pytest.mark.parametrize("cuts", [(), (4, 5)], ids=["whole", "pieces"])
def test_against_the_textbook(reading, operator, block, tolerance, options, cuts):
    given, state, parts, how = inputs(TIME, 1), empty(operator), [], of(operator, attributes(**options), block)
    for start, stop in zip((0, *cuts), (*cuts, TIME), strict=True):
        new = {name: x[:, start:stop] for name, x in given.items()}
        y, *caches = reading(operator, new | state, how)
        state = dict(zip(KINDS[operator], caches, strict=True)) | {"position": np.array([[stop]])}
        parts.append(y)
    expected = textbook(**given, how=how)
    np.testing.assert_allclose(np.concatenate(parts, 1), expected, atol=tolerance)
    assert (state["keys"][:, :, TIME:] == 9).all() and (state["values"][:, :, TIME:] == 9).all()


@pytest.mark.parametrize("rotary", [0, 4])
@pytest.mark.parametrize("operator", KINDS)
def test_tables_say_the_angles(reading, operator, rotary):
    """Those of the same base give the same, but for a last digit that rounds the other way."""
    given, state, how = inputs(5, 4), empty(operator), of(operator, attributes(rotate=1.0, rotary=rotary))
    turns = angles(5, rotary or WIDTH)[None].astype(np.float32)
    tables = {"cos": np.cos(turns), "sin": np.sin(turns)}
    found = reading(operator, given | state | tables, how | {"theta": 1.0})
    for one, other in zip(found, reading(operator, given | state, how), strict=True):
        np.testing.assert_allclose(
            one.astype(np.float64), other, atol=3e-6 if operator == "CachedAttention" else LAST_DIGITS[other.dtype]
        )


def test_mixed_in_pairs(reading):
    """(a, b) is stored as (a + b, a - b): keys (0, 0), (ln 3, 0), values (1, 0), (5, 0); shares 1/4 and 3/4."""
    log3 = np.log(np.float32(3))
    given = {"q": np.float32([[[np.sqrt(2), 0]]]), "k": np.float32([[[log3, 0]]]), "v": np.float32([[[5, 0]]])}
    caches = {"keys": np.int8([[[[0, 0], [3, 3]]]]), "values": np.int8([[[[127, 127], [3, 3]]]])}
    scales = {"key_scales": np.float32([[[1, 2]]]), "value_scales": np.float32([[[1 / 127, 2]]])}
    how = attributes(heads=1) | {"theta": 1.0, "hadamard": 2}
    found = reading("CachedAttentionInt8", given | caches | scales | {"position": np.array([[1]])}, how)
    np.testing.assert_allclose(found[0], [[[4, 0]]], atol=1e-4)
    np.testing.assert_array_equal(found[1], [[[[0, 0], [127, 127]]]])
    np.testing.assert_array_equal(found[2], [[[[127, 127], [127, 127]]]])
    np.testing.assert_allclose(found[3], [[[1, log3 / 127]]], rtol=1e-6)
    np.testing.assert_allclose(found[4], [[[1 / 127, 5 / 127]]], rtol=1e-6)


@pytest.mark.parametrize(
    ("block", "message"),
    [(3, "hadamard = 3 is neither 0 nor a power of two up to 256"), (512, "hadamard = 512 is neither"),
     (16, "hadamard = 16 does not divide heads of width 8")],
)  # fmt: skip
def test_blocks_that_cannot_be_mixed_are_refused(kernel_reading, block, message):
    how = attributes() | {"hadamard": block}
    with pytest.raises((InvalidArgument, Fail, RuntimeException), match=message):
        kernel_reading("CachedAttentionInt8", inputs(3, 2) | empty("CachedAttentionInt8"), how)


def test_outliers_of_one_channel_cost_the_others_less():
    """Keys of eight in one channel and of one in the other 63: steps of 8 / 127 against about 2.5 / 127."""
    rng = np.random.default_rng(5)
    keys = rng.normal(0, 1, (1, 8, 64)).astype(np.float32)
    keys[..., 0] = 8
    caches = [torch.zeros(1, 1, 8, 64, dtype=torch.int8)] * 2 + [torch.zeros(1, 1, 8)] * 2
    values = torch.zeros(1, 8, 64)
    errors = []
    for block in (0, 64):
        new = (values, torch.from_numpy(keys), values)
        result = cached_attention_int8(
            *new, *caches, torch.zeros(1, 1, dtype=torch.int64), None, None, 1, 0, 0, block, 1.0, 0.0, 0.0, 0.0
        )
        stored = (result[1].float() * result[3][..., None])[0, 0].numpy()
        matrix = np.array([[(-1.0) ** (i & j).bit_count() for i in range(64)] for j in range(64)]) / 64
        errors.append(np.square((stored @ matrix if block else stored) - keys[0]).mean())
    assert errors[1] < errors[0] / 4


def test_a_full_context_is_refused(kernel_reading):
    given = inputs(3, 2) | empty("CachedAttention") | {"position": np.array([[LENGTH - 2]])}
    how = attributes(rotate=1.0)
    with pytest.raises(SlmcError, match=r"14 tokens do not fit into a context of 13; give --context 14 or more"):
        cached_attention(*(torch.from_numpy(x) for x in given.values()), None, None, *how.values())
    with pytest.raises(InvalidArgument, match="14 tokens do not fit into a context of 13"):
        kernel_reading("CachedAttention", given, how)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rotate": 1.0, "rotary": 3}, "3 channels of heads of width 8 do not turn"),
        ({"rotate": 1.0, "rotary": 10}, "10 channels of heads of width 8 do not turn"),
        ({"window": -1}, "window = -1 is negative"),
        ({"cap": -1.0}, "cap = -1.0+ is negative"),
    ],
)
def test_options_that_make_no_sense_are_refused(kernel_reading, options, message):
    with pytest.raises((InvalidArgument, Fail, RuntimeException), match=message):
        kernel_reading("CachedAttention", inputs(3, 2) | empty("CachedAttention"), attributes(**options))


def test_tables_of_another_length_are_refused(kernel_reading):
    tables = {"cos": np.ones((1, 2, 4), np.float32), "sin": np.ones((1, 2, 4), np.float32)}
    with pytest.raises(InvalidArgument, match=r"input 'cos' is \[1, 2, 4\], expected \[1, 3, 4\]"):
        kernel_reading("CachedAttention", inputs(3, 2) | empty("CachedAttention") | tables, attributes(rotate=1.0))


@pytest.mark.parametrize("options", [{"rotate": 1.0}, OPTIONS["all"]], ids=["rotary", "all"])
def test_gradients_reach_queries_keys_and_values(options):
    how = attributes(**options)
    given = [torch.from_numpy(x).double().requires_grad_() for x in inputs(4, 3).values()]
    caches = [torch.zeros(1, GROUPS, LENGTH, WIDTH, dtype=torch.float64) for _ in range(2)]

    def of(*new: torch.Tensor) -> torch.Tensor:
        start = torch.zeros(1, 1, dtype=torch.int64)
        return cached_attention(*new, *caches, start, None, None, *how.values())[0]

    torch.autograd.gradcheck(of, given, eps=1e-4, atol=1e-3, fast_mode=True)
