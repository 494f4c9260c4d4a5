"""What a config.json says of a Llama and of the model types that compute the same: a type is a row of options.

Places, defaults and what null means are those of the classes of Hugging Face transformers 5.
"""

from __future__ import annotations

from toolchain.model.options import Group, Option, OptionTable, SameAs, always, each_of, flag, one_of, positive, whole
from toolchain.model.rotary import SCALINGS

ROPE = Group(
    ("rope_scaling", "rope_parameters"),
    frozenset(
        {
            "rope_type", "type", "rope_theta", "factor", "low_freq_factor", "high_freq_factor", "truncate",
            "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow", "mscale",
            "mscale_all_dim", "partial_rotary_factor",
        }
    ),
    ignored=frozenset({"finetuned"}),
)  # fmt: skip
"""`rope_scaling` as it was until transformers 5, and `rope_parameters`; `type` is the older key of `rope_type`."""

_ROPE_OPTIONS = {
    "theta": Option(("rope.rope_theta", "rope_theta"), positive, 10000.0),
    "rope_type": Option(("rope.rope_type", "rope.type"), one_of(*SCALINGS), "default"),
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

LLAMA_OPTIONS = {
    "heads": Option(("num_attention_heads",), whole),
    "groups": Option(("num_key_value_heads",), whole, SameAs("heads")),
    "head_width": Option(("head_dim",), whole, None),
    "context": Option(("max_position_embeddings",), whole, 2048),
    "epsilon": Option(("rms_norm_eps",), positive, 1e-6),
    "activation": Option(("hidden_act",), one_of("silu", "swish"), "silu"),
    "qkv_bias": Option(("attention_bias",), flag, False),
    "output_bias": Option(("attention_bias",), flag, False),
    "mlp_bias": Option(("mlp_bias",), flag, False),
    "tied": Option(("tie_word_embeddings",), flag, None),
    "window": Option(("sliding_window",), whole, None),
    "use_window": Option(("use_sliding_window",), flag, True),
    "layer_types": Option(("layer_types",), each_of("full_attention", "sliding_attention"), ()),
    **_ROPE_OPTIONS,
}
"""Options by our names. A window is kept by a cache that is no longer than it, so that no token ever leaves it."""

_SIZES = frozenset({"num_hidden_layers", "hidden_size", "vocab_size", "intermediate_size"})


def _row(**changed: Option) -> OptionTable:
    return OptionTable(LLAMA_OPTIONS | changed, _SIZES, groups={"rope": ROPE}, ignored=frozenset({"max_window_layers"}))


TABLES = {
    "llama": _row(),
    "mistral": _row(
        groups=Option(("num_key_value_heads",), whole, 8, null=SameAs("heads")),
        context=Option(("max_position_embeddings",), whole, 4096 * 32),
        window=Option(("sliding_window",), whole, 4096, null=None),
        qkv_bias=always(False), output_bias=always(False), mlp_bias=always(False),
    ),
    "qwen2": _row(
        groups=Option(("num_key_value_heads",), whole, 32, null=SameAs("heads")),
        context=Option(("max_position_embeddings",), whole, 32768),
        window=Option(("sliding_window",), whole, 4096, null=None),
        use_window=Option(("use_sliding_window",), flag, False),
        qkv_bias=always(True), output_bias=always(False), mlp_bias=always(False),
    ),
}  # fmt: skip
"""By model_type."""
