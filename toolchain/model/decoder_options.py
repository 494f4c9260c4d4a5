"""What a config.json says of a decoder: Llama's options, which the rows of `decoder_types` change by name.

Places, defaults and what null means are those of the classes of Hugging Face transformers 5.
"""

from __future__ import annotations

from typing import Any

from exporters.artifact.errors import SlmcError
from toolchain.model.decoder_parts import ACTIVATIONS
from toolchain.model.options import Group, Option, OptionTable, SameAs, always, flag, one_of, positive, whole
from toolchain.model.rotary import SCALINGS

SCALING_KEYS = frozenset(
    {
        "rope_type", "type", "rope_theta", "factor", "low_freq_factor", "high_freq_factor", "truncate",
        "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow", "mscale",
        "mscale_all_dim", "partial_rotary_factor", "short_factor", "long_factor",
    }
)  # fmt: skip
ROPE = Group(("rope_scaling", "rope_parameters"), SCALING_KEYS, ignored=frozenset({"finetuned"}))
"""`rope_scaling` as it was until transformers 5, and `rope_parameters`; `type` is the older key of `rope_type`."""


def activation(default: str, *places: str) -> Option:
    """The MLP's activation."""
    return Option(places or ("hidden_act",), one_of(*ACTIVATIONS), default)


def share(key: str, value: Any) -> float:
    """A number above 0, at most 1."""
    found = positive(key, value)
    one_of(found if found <= 1 else "a share of at most 1")(key, found)
    return found


def inverse_root(key: str, value: Any) -> float:
    """1 / sqrt(a number above 0)."""
    return float(positive(key, value) ** -0.5)


def each_above_0(key: str, value: Any) -> tuple[float, ...]:
    """A list of numbers above 0."""
    if not isinstance(value, list):
        raise SlmcError(f"config.json: {key} is {value!r}; a list of numbers is needed")
    return tuple(positive(key, entry) for entry in value)


def count(key: str, value: Any) -> int:
    """A whole number, 0 or above."""
    return 0 if value == 0 and isinstance(value, int) and not isinstance(value, bool) else whole(key, value)


BASE: dict[str, Option] = {
    "heads": Option(("num_attention_heads",), whole),
    "groups": Option(("num_key_value_heads",), whole, SameAs("heads")),
    "head_size": Option(("head_dim",), whole, None),
    "context": Option(("max_position_embeddings",), whole, 2048),
    "epsilon": Option(("rms_norm_eps",), positive, 1e-6),
    "norm": always("rms"),
    "placement": always("before"),
    "last_norm": always(True),
    "head_norms": always("none"),
    "parallel": always(False),
    "shared_norm": always(False),
    "gated": always(True),
    "activation": activation("silu"),
    "qkv_bias": Option(("attention_bias",), flag, False),
    "output_bias": Option(("attention_bias",), flag, False),
    "mlp_bias": Option(("mlp_bias",), flag, False),
    "head_bias": always(False),
    "offset": always(0),
    "tied": Option(("tie_word_embeddings",), flag, None),
    "scale": always(0.0),
    "scale_by_layer": always(False),
    "attention_cap": always(0.0),
    "logit_cap": always(0.0),
    "logit_divisor": always(1.0),
    "embedding_scale": always(1.0),
    "residual_scale": always(1.0),
    "rotary": always(True),
    "plain_layers": always(()),
    "plain_every": always(0),
    "window": always(None),
    "window_used": always(True),
    "window_from": always(0),
    "full_every": always(0),
    "window_plain": always(False),
    "layer_types": always(()),
    "theta": Option(("rope.rope_theta", "rope_theta"), positive, 10000.0),
    "local_theta": always(None),
    "rope_type": Option(("rope.rope_type", "rope.type"), one_of(*SCALINGS), "default"),
    "short_factor": Option(("rope.short_factor",), each_above_0, None),
    "factor": Option(("rope.factor",), positive, None),
    "low_freq_factor": Option(("rope.low_freq_factor",), positive, None),
    "high_freq_factor": Option(("rope.high_freq_factor",), positive, None),
    "first_context": Option(("original_max_position_embeddings", "rope.original_max_position_embeddings"), whole, None),
    "attention_factor": Option(("rope.attention_factor",), positive, None),
    "beta_fast": Option(("rope.beta_fast",), positive, 32),
    "beta_slow": Option(("rope.beta_slow",), positive, 1),
    "mscale": Option(("rope.mscale",), positive, None),
    "mscale_all_dim": Option(("rope.mscale_all_dim",), positive, None),
    "truncate": Option(("rope.truncate",), flag, True),
    "rotated_share": Option(("rope.partial_rotary_factor",), one_of(1), 1),
}
"""By our names; what is always so is not read. Those that `DecoderConfig` has mean what they mean there.

offset: of learned positions, which the weights show. scale: of scores, 0 for 1 / sqrt(head_size); by layer, layer i has
1 / (i + 1) of it. rotary: whether positions are rotary at all; plain_layers: flags by layer, false without them;
plain_every: without such flags, every so manyth layer has none.
window: tokens that a token sees in the layers that are not full, if it is used; from layer `window_from` on, but in
every `full_every`th, or in those without rotary positions alone if `window_plain`; layer_types says it layer by layer.
local_theta: base of the layers with a window, where it is another. embedding_scale: None for the root of the width.
"""

SIZES = {
    "layers": ("num_hidden_layers",), "hidden_size": ("hidden_size",), "vocabulary": ("vocab_size",),
    "intermediate_size": ("intermediate_size",),
}  # fmt: skip
"""Keys of what the weights say themselves."""


def table(
    changed: dict[str, Option] | None = None, sizes: dict[str, tuple[str, ...]] | None = None, ignored: str = "",
    fixed: dict[str, tuple[Any, ...]] | None = None, groups: dict[str, Group] | None = None,
) -> OptionTable:  # fmt: skip
    """Llama's options, with those of a model type in their place; ignored: keys, with blanks between."""
    return OptionTable(
        BASE | (changed or {}),
        frozenset(key for keys in (sizes or SIZES).values() for key in keys),
        fixed or {},
        frozenset(ignored.split()),
        {"rope": ROPE} if groups is None else groups,
    )
