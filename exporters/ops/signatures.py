"""The operators of domain ai.slmc, said once: names, inputs, outputs, attributes.

Arrays: x is float32 [..., K]; N output features, K input features, G = ceil(K / group) groups per row.
Codes are packed along K, least significant bits first, every group padded to whole bytes and to `group` codes:
a packed tensor of b bits is uint8 [N, G, group * b / 8], which for b in 2, 4, 8 is exactly MatMulNBits' layout.
Widths 3, 5 and 6 are two packed tensors: `codes` holds the low 2, 4, 4 bits, `high` the remaining 1, 1, 2 bits.

    w[n, k] = scales[n, g] * (code[n, k] - zero[n, g])     with g = k // group, zero = 2^(bits-1) where not given
    w[n, k] = scales[n, g] * steps[code[n, k]]             where there is a table of steps
"""

from __future__ import annotations

from dataclasses import dataclass

DOMAIN = "ai.slmc"
FUSED = "Fused"
"""Several of the operators below as one node (exporters.ops.steps)."""
VERSION = 1

FLOAT, HALF, UINT8, INT64 = "tensor(float)", "tensor(float16)", "tensor(uint8)", "tensor(int64)"
INT8 = "tensor(int8)"


@dataclass(frozen=True)
class Parameter:
    """One input or output: its name, ONNX type, and whether it may be left out."""

    name: str
    type: str
    optional: bool = False


@dataclass(frozen=True)
class Signature:
    """One operator; `ints` and `floats` are its required attributes."""

    name: str
    inputs: tuple[Parameter, ...]
    outputs: tuple[Parameter, ...]
    ints: tuple[str, ...] = ()
    floats: tuple[str, ...] = ()


_PACKED = (
    Parameter("codes", UINT8),
    Parameter("scales", HALF),
    Parameter("high", UINT8, optional=True),
    Parameter("zeros", UINT8, optional=True),  # [N, G]
)

_TABLE = (*_PACKED[:3], Parameter("steps", INT8))  # [2^bits], for 3 and 4 bits

QLINEAR = Signature(
    "QLinear",  # y[..., n] = sum_k x[..., k] w[n, k]
    (Parameter("x", FLOAT), *_PACKED),
    (Parameter("y", FLOAT),),
    # activation_bits: 32, or 8: x rounded as in ops/activations.py; tile: 16, or 0: see exporters.formats.tiles
    ints=("K", "N", "bits", "group", "activation_bits", "tile"),
)
TABLE_LINEAR = Signature(
    "TableLinear",  # the same with a table of steps
    (Parameter("x", FLOAT), *_TABLE),
    (Parameter("y", FLOAT),),
    ints=("K", "N", "bits", "group", "activation_bits", "tile"),
)
EVENT_LINEAR = Signature(
    "EventLinear",  # the same with packed tensors input-major, scales and zeros [G, N] (exporters.formats.event)
    (Parameter("x", FLOAT), *_PACKED),
    (Parameter("y", FLOAT),),
    ints=("K", "N", "bits", "group", "activation_bits"),
)
HALF_LINEAR = Signature(
    "HalfLinear",  # the same with w float16 [N, K]
    (Parameter("x", FLOAT), Parameter("w", HALF)),
    (Parameter("y", FLOAT),),
)
QEMBEDDING = Signature(
    "QEmbedding",  # y[..., :] = w[token, :]
    (Parameter("tokens", INT64), *_PACKED),
    (Parameter("y", FLOAT),),
    # tile: 16 where a QLinear reads the same packed tensors, in tiles (exporters.formats.tiles), else 0
    ints=("K", "N", "bits", "group", "tile"),
)
TABLE_EMBEDDING = Signature(
    "TableEmbedding",  # the same with a table of steps; tile: 16 where a TableLinear reads the same packed tensors
    (Parameter("tokens", INT64), *_TABLE),
    (Parameter("y", FLOAT),),
    ints=("K", "N", "bits", "group", "tile"),
)
SIGN_EMBEDDING = Signature(
    "SignEmbedding",  # y[..., k] = +1 where bit k of row `token` is set, else -1; codes [N, ceil(K / 8)]
    (Parameter("tokens", INT64), Parameter("codes", UINT8)),
    (Parameter("y", FLOAT),),
    ints=("K", "N"),
)
LIF = Signature(
    "Lif",  # current and spikes [1, T, C], membranes [1, C]
    (Parameter("current", FLOAT), Parameter("membrane", FLOAT)),
    (Parameter("spikes", FLOAT), Parameter("membrane_out", FLOAT)),
    floats=("tau", "threshold", "reset"),
)
WKV = Signature(
    "Wkv",  # decay, first [C]; key, value, y [1, T, C]; the three states [1, C]
    tuple(Parameter(n, FLOAT) for n in ("decay", "first", "key", "value", "numerator", "denominator", "exponent")),
    tuple(Parameter(n, FLOAT) for n in ("y", "numerator_out", "denominator_out", "exponent_out")),
)
SPARSE_LINEAR = Signature(
    "SparseLinear",  # QLinear with `kept` of every `period` inputs stored; packed tensors as exporters.formats.nm says
    (
        Parameter("x", FLOAT),
        Parameter("codes", UINT8),
        Parameter("scales", HALF),
        Parameter("high", UINT8, optional=True),
        Parameter("patterns", UINT8, optional=True),  # not there where kept = period
    ),
    (Parameter("y", FLOAT),),
    # tile: 16, or 1: see exporters.formats.sparse_tiles; artifacts up to 0.1 have 0 (native/quads.h)
    ints=("K", "N", "bits", "group", "kept", "period", "pattern_rows", "float4", "activation_bits", "tile"),
)

_ROTARY_TABLES = tuple(Parameter(n, FLOAT, optional=True) for n in ("cos", "sin"))  # of the new tokens, [1, T, r / 2]
_ATTENTION_INTS = ("heads", "window", "rotary")
_ATTENTION_FLOATS = ("theta", "rotate", "scale", "cap")
# window: token t sees the slots s with t - s < window; 0 for all. rotary: channels r of a head that turn, its first
# ones, 0 for all. rotate: 0 or 1; theta counts where there are no tables. scale: of scores, 0 for 1 / sqrt(d). cap c:
# scores become c tanh(score / c), 0 for none. A node that was made before these existed has none of the zeros.
CACHED_ATTENTION = Signature(
    "CachedAttention",  # q, y [1, T, H d]; k, v [1, T, G d]; keys, values [1, G, C, d]; position [1, 1]
    (*(Parameter(n, FLOAT) for n in ("q", "k", "v", "keys", "values")), Parameter("position", INT64), *_ROTARY_TABLES),
    tuple(Parameter(n, FLOAT) for n in ("y", "keys_out", "values_out")),
    ints=_ATTENTION_INTS,
    floats=_ATTENTION_FLOATS,
)
CACHED_ATTENTION_HALF = Signature(
    "CachedAttentionHalf",  # the same with caches of float16
    (
        *(Parameter(n, FLOAT) for n in ("q", "k", "v")),
        *(Parameter(n, HALF) for n in ("keys", "values")),
        Parameter("position", INT64),
        *_ROTARY_TABLES,
    ),
    (Parameter("y", FLOAT), *(Parameter(n, HALF) for n in ("keys_out", "values_out"))),
    ints=_ATTENTION_INTS,
    floats=_ATTENTION_FLOATS,
)
CACHED_ATTENTION_INT8 = Signature(
    # The same with key[s] = key_scales[s] * keys[s]; scales [1, G, C]. hadamard: channels that are mixed before they
    # are rounded, a power of two; 0 for none, as in nodes that were made before it existed.
    "CachedAttentionInt8",
    (
        *(Parameter(n, FLOAT) for n in ("q", "k", "v")),
        *(Parameter(n, INT8) for n in ("keys", "values")),
        *(Parameter(n, FLOAT) for n in ("key_scales", "value_scales")),
        Parameter("position", INT64),
        *_ROTARY_TABLES,
    ),
    (
        Parameter("y", FLOAT),
        *(Parameter(n, INT8) for n in ("keys_out", "values_out")),
        *(Parameter(n, FLOAT) for n in ("key_scales_out", "value_scales_out")),
    ),
    ints=(*_ATTENTION_INTS, "hadamard"),
    floats=_ATTENTION_FLOATS,
)


def _floats(*names: str) -> tuple[Parameter, ...]:
    return tuple(Parameter(name, FLOAT) for name in names)


RMS_NORM = Signature(
    "RmsNorm",  # x, y [..., C]; weight [C]
    _floats("x", "weight"),
    _floats("y"),
    floats=("epsilon",),
)
SHIFT_MIX2 = Signature(
    "ShiftMix2",  # x, y [1, T, C]; before [1, C]; weight, bias [C]; mixes [1, 1, C]
    _floats("x", "before", "weight", "bias", "mix_0", "mix_1"),
    _floats("y_0", "y_1", "before_out"),
    floats=("epsilon",),
)
SHIFT_MIX3 = Signature(
    "ShiftMix3",  # likewise
    _floats("x", "before", "weight", "bias", "mix_0", "mix_1", "mix_2"),
    _floats("y_0", "y_1", "y_2", "before_out"),
    floats=("epsilon",),
)
GATED_WKV = Signature(
    "GatedWkv",  # Wkv, then y * sigmoid(receptance)
    _floats("decay", "first", "key", "value", "receptance", "numerator", "denominator", "exponent"),
    _floats("y", "numerator_out", "denominator_out", "exponent_out"),
)
SPIKE_ADD = Signature(
    "SpikeAdd",  # residual + the spikes of Lif
    _floats("residual", "current", "membrane"),
    _floats("sum", "membrane_out"),
    floats=("tau", "threshold", "reset"),
)
GATED_SPIKE_ADD = Signature(
    "GatedSpikeAdd",  # the same with current * sigmoid(receptance)
    _floats("residual", "current", "membrane", "receptance"),
    _floats("sum", "membrane_out"),
    floats=("tau", "threshold", "reset"),
)
SQUARED_RELU = Signature("SquaredRelu", _floats("x"), _floats("y"))
INTEGRATE_FIRE = Signature(
    "IntegrateFire",  # current, spikes [S, rows, C]; threshold, amplitude [S]
    _floats("current", "threshold", "amplitude"),
    _floats("spikes"),
    floats=("leak", "ternary", "soft"),
)
PLIF = Signature(
    "Plif",  # current, y [1, T, C]; decay, gain, threshold, drop [], [C] or [1, T, C]; membrane [1, C]
    _floats("current", "decay", "gain", "threshold", "drop", "membrane"),
    _floats("y", "membrane_out"),
    floats=("low", "high", "reset", "soft", "membranes"),
)
LINEAR_RECURRENCE = Signature(
    "LinearRecurrence",  # y[t] = decay y[t-1] + current[t]; decay [], [C] or [1, T, C]; y as current; state [1, C]
    _floats("decay", "current", "state"),
    _floats("y", "state_out"),
)
DELTA_RULE = Signature(
    "DeltaRule",  # query, y [1, T, H d]; the next five [1, T, G d]; state [1, G, d, d], rows of values
    _floats("query", "decay", "key", "value", "removed", "rate", "state"),
    _floats("y", "state_out"),
)
ANCHORED_ATTENTION = Signature(
    "AnchoredAttention",  # q, k, v, y [1, T, H d]; present [1, T]; keys, values [1, H, C, d]; seen [1, C]
    (*_floats("q", "k", "v", "present", "keys", "values", "seen"), Parameter("position", INT64)),  # position [1, 1]
    _floats("y", "keys_out", "values_out", "seen_out"),
    ints=("heads", "anchors"),
    floats=("theta",),
)
ANCHORED_ATTENTION_INT8 = Signature(
    "AnchoredAttentionInt8",  # the same with key[s] = key_scales[s] * keys[s]; scales [1, H, C]
    (
        *_floats("q", "k", "v", "present"),
        *(Parameter(n, INT8) for n in ("keys", "values")),
        *_floats("seen", "key_scales", "value_scales"),
        Parameter("position", INT64),
    ),
    (
        Parameter("y", FLOAT),
        *(Parameter(n, INT8) for n in ("keys_out", "values_out")),
        *_floats("seen_out", "key_scales_out", "value_scales_out"),
    ),
    ints=("heads", "anchors"),
    floats=("theta",),
)
TERNARY_LINEAR = Signature(
    "TernaryLinear",  # x [..., K] rounded to 8 bits, one step a token; codes, scale as exporters.formats.trits says
    (Parameter("x", FLOAT), Parameter("codes", UINT8), Parameter("scale", FLOAT)),
    (Parameter("y", FLOAT),),
    ints=("K", "N"),
)

SIGNATURES = (
    QLINEAR,
    TABLE_LINEAR,
    HALF_LINEAR,
    QEMBEDDING,
    TABLE_EMBEDDING,
    SIGN_EMBEDDING,
    LIF,
    WKV,
    RMS_NORM,
    SHIFT_MIX2,
    SHIFT_MIX3,
    GATED_WKV,
    SPIKE_ADD,
    GATED_SPIKE_ADD,
    SQUARED_RELU,
    SPARSE_LINEAR,
    EVENT_LINEAR,
    CACHED_ATTENTION,
    CACHED_ATTENTION_HALF,
    CACHED_ATTENTION_INT8,
    INTEGRATE_FIRE,
    PLIF,
    LINEAR_RECURRENCE,
    DELTA_RULE,
    ANCHORED_ATTENTION,
    ANCHORED_ATTENTION_INT8,
    TERNARY_LINEAR,
)
