"""The model types that the decoder computes: a row each. `docs/how-to/own-family.md` says how to add one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toolchain.model.decoder_options import (
    SCALING_KEYS,
    SIZES,
    activation,
    count,
    inverse_root,
    share,
    table,
)
from toolchain.model.decoder_tensors import (
    Part,
    by_heads,
    halves,
    one_above,
    queries_keys_values,
    stacked_heads,
    thirds,
    transposed,
)
from toolchain.model.options import (
    Group,
    Option,
    OptionTable,
    SameAs,
    always,
    each_of,
    either,
    flag,
    positive,
    whole,
)


@dataclass(frozen=True)
class ModelType:
    """A row. options: what its config.json may say. names: patterns of tensors' names and Llama's names for them.
    parts: how tensors become those of Llama. sizes: keys of what the weights say. family: what it is called.
    known_by: a tensor, by its own name, that tells the type where no config names it."""

    options: OptionTable
    names: tuple[tuple[str, str], ...]
    parts: tuple[Part, ...]
    sizes: Mapping[str, tuple[str, ...]]
    family: str | None
    known_by: str


def _context(tokens: int) -> Option:
    return Option(("max_position_embeddings",), whole, tokens)


def _groups(default: int) -> Option:
    return Option(("num_key_value_heads",), whole, default, null=SameAs("heads"))


def _window(default: int | None) -> Option:
    return Option(("sliding_window",), count, default, null=None)


_LAYER_TYPES = Option(("layer_types",), each_of("full_attention", "sliding_attention"), ())
_NO_BIAS = {"qkv_bias": always(False), "output_bias": always(False), "mlp_bias": always(False)}
_ALL_BIASES = {"qkv_bias": always(True), "output_bias": always(True), "mlp_bias": always(True)}
_LAYER_NORM = {"norm": always("layer"), "epsilon": Option(("layer_norm_eps",), positive, 1e-5)}
_TIED = {"tied": Option(("tie_word_embeddings",), flag, True)}
_QWEN = {
    "groups": _groups(32), "context": _context(32768), "window": _window(4096), "layer_types": _LAYER_TYPES,
    "window_used": Option(("use_sliding_window",), flag, False),
    "window_from": Option(("max_window_layers",), count, 28), "mlp_bias": always(False),
}  # fmt: skip
_GEMMA = _TIED | {
    "groups": _groups(4), "head_size": Option(("head_dim",), whole, 256), "placement": always("both"),
    "activation": activation("gelu_pytorch_tanh", "hidden_activation"), "embedding_scale": always(None),
    "scale": Option(("query_pre_attn_scalar",), inverse_root, 256**-0.5), "window": _window(4096),
    "layer_types": _LAYER_TYPES, "mlp_bias": always(False),
    "attention_cap": Option(("attn_logit_softcapping",), positive, 50.0, null=0.0),
    "logit_cap": Option(("final_logit_softcapping",), positive, 30.0, null=0.0),
}  # fmt: skip
_GEMMA_NAMES = (
    (r"\.post_attention_layernorm\.", ".attention_output_norm."),
    (r"\.pre_feedforward_layernorm\.", ".post_attention_layernorm."),
    (r"\.post_feedforward_layernorm\.", ".mlp_output_norm."),
)
_GEMMA_PART = Part(r"(.*norm\.weight)", (r"\1",), one_above)
_GEMMA_HOW: dict[str, Any] = {
    "ignored": "hidden_act cache_implementation", "fixed": {"use_bidirectional_attention": (None, False)},
}  # fmt: skip
_SELF_ATTENTION = (r"\1.self_attn.q_proj.\2", r"\1.self_attn.k_proj.\2", r"\1.self_attn.v_proj.\2")
_HEAD_NORMS = ((r"\.([qk])_norm\.", r".\1_norm.norm."),)


def row(
    changed: dict[str, Option], names: tuple[tuple[str, str], ...] = (), *parts: Part, family: str | None = None,
    known_by: str = "", **how: Any,
) -> ModelType:  # fmt: skip
    """A model type by the options that differ from Llama's; how: of `decoder_options.table`."""
    options = table(changed, **how)
    return ModelType(options, names, parts, how.get("sizes", SIZES), family, known_by)


TYPES: Mapping[str, ModelType] = {
    "llama": row({}, known_by="layers.0.mlp.gate_proj.weight", ignored="max_window_layers"),
    "mistral": row(
        _NO_BIAS | {"groups": _groups(8), "context": _context(4096 * 32), "window": _window(4096)},
        family="llama", ignored="max_window_layers layer_types",
    ),
    "qwen2": row(_QWEN | {"qkv_bias": always(True), "output_bias": always(False)}, family="llama"),
    "qwen3": row(
        _QWEN | {"head_size": Option(("head_dim",), whole, 128), "head_norms": always("shared")}, _HEAD_NORMS
    ),
    "smollm3": row(
        _TIED | {
            "groups": _groups(4), "context": _context(32768), "window": _window(None), "layer_types": _LAYER_TYPES,
            "window_used": Option(("use_sliding_window",), flag, False), "window_plain": always(True),
            "theta": Option(("rope.rope_theta", "rope_theta"), positive, 2000000.0),
            "plain_layers": Option(("no_rope_layers",), each_of(0, 1), ()),
            "plain_every": Option(("no_rope_layer_interval",), whole, 4),
        },
        ignored="max_window_layers",
    ),
    "granite": row({
        "scale": Option(("attention_multiplier",), positive, 1.0),
        "embedding_scale": Option(("embedding_multiplier",), positive, 1.0),
        "residual_scale": Option(("residual_multiplier",), positive, 1.0),
        "logit_divisor": Option(("logits_scaling",), positive, 1.0),
    }),
    "olmo2": row(
        {
            "epsilon": Option(("rms_norm_eps",), positive, 1e-5), "placement": always("output"),
            "head_norms": always("whole"), "mlp_bias": always(False),
        },
        ((r"\.post_attention_layernorm\.", ".attention_output_norm."),
         (r"\.post_feedforward_layernorm\.", ".mlp_output_norm.")),
    ),
    "gemma2": row(
        _GEMMA | {"context": _context(8192), "full_every": always(2)}, _GEMMA_NAMES, _GEMMA_PART, **_GEMMA_HOW
    ),
    "gemma3_text": row(
        _GEMMA | {
            "context": _context(131072), "head_norms": always("shared"),
            "full_every": Option(("sliding_window_pattern", "_sliding_window_pattern"), whole, 6),
            "attention_cap": always(0.0),
            "logit_cap": Option(("final_logit_softcapping",), positive, 0.0),
            "theta": Option(("rope.rope_theta", "rope_theta"), positive, 1000000.0),
            "local_theta": Option(("local.rope_theta", "rope_local_base_freq"), positive, 10000.0),
        },
        (*_HEAD_NORMS, *_GEMMA_NAMES), _GEMMA_PART, **_GEMMA_HOW,
        groups={
            "rope": Group(("rope_scaling", "rope_parameters.full_attention"), SCALING_KEYS),
            "local": Group(("rope_parameters.sliding_attention",), frozenset({"rope_type", "rope_theta"})),
        },
    ),
    "phi3": row(
        _NO_BIAS | {
            "epsilon": Option(("rms_norm_eps",), positive, 1e-5), "context": _context(4096), "window": _window(None),
            "rotated_share": Option(("rope.partial_rotary_factor", "partial_rotary_factor"), share, 1.0),
            "first_context": Option(("original_max_position_embeddings",), whole, 4096),
        },
        (),
        Part(r"(.*)\.qkv_proj\.(\w+)", (r"\1.q_proj.\2", r"\1.k_proj.\2", r"\1.v_proj.\2"), queries_keys_values),
        Part(r"(.*)\.gate_up_proj\.(\w+)", (r"\1.gate_proj.\2", r"\1.up_proj.\2"), halves),
        known_by="layers.0.mlp.gate_up_proj.weight",
    ),
    "phi": row(
        _LAYER_NORM | _ALL_BIASES | {
            "activation": activation("gelu_new"), "gated": always(False), "parallel": always(True),
            "shared_norm": always(True), "head_bias": always(True),
            "head_norms": Option(("qk_layernorm",), either("shared", "none"), "none"),
            "rotated_share": Option(("rope.partial_rotary_factor", "partial_rotary_factor"), share, 0.5),
        },
        ((r"\.self_attn\.dense\.", ".self_attn.o_proj."), (r"\.([qk])_layernorm\.", r".\1_norm.norm."),
         (r"\.mlp\.fc1\.", ".mlp.up_proj."), (r"\.mlp\.fc2\.", ".mlp.down_proj."), (r"^final_layernorm\.", "norm.")),
        known_by="layers.0.self_attn.dense.weight",
    ),
    "stablelm": row(
        _LAYER_NORM | {
            "groups": _groups(32), "context": _context(4096), "mlp_bias": always(False), "output_bias": always(False),
            "qkv_bias": Option(("use_qkv_bias",), flag, False),
            "head_norms": Option(("qk_layernorm",), either("each", "none"), "none"),
            "parallel": Option(("use_parallel_residual",), flag, False),
            "shared_norm": Option(("use_parallel_residual",), flag, False),
            "rotated_share": Option(("rope.partial_rotary_factor", "partial_rotary_factor"), share, 0.25),
        },
        (),
        Part(r"(.*)\.([qk])_layernorm\.norms\.[0-9]+\.weight", (r"\1.\2_norm.weight",), stacked_heads),
    ),
    "starcoder2": row(
        _LAYER_NORM | _TIED | dict.fromkeys(("qkv_bias", "output_bias", "mlp_bias"), Option(("use_bias",), flag, True))
        | {
            "groups": _groups(2), "context": _context(4096), "window": _window(None), "gated": always(False),
            "epsilon": Option(("norm_epsilon",), positive, 1e-5), "activation": activation("gelu_pytorch_tanh"),
        },
        ((r"\.mlp\.c_fc\.", ".mlp.up_proj."), (r"\.mlp\.c_proj\.", ".mlp.down_proj.")),
        ignored="residual_dropout embedding_dropout",
    ),
    "gpt_neox": row(
        _LAYER_NORM | {
            "groups": always(SameAs("heads")), "activation": activation("gelu"), "gated": always(False),
            "mlp_bias": always(True), "qkv_bias": Option(("attention_bias",), flag, True),
            "output_bias": Option(("attention_bias",), flag, True),
            "parallel": Option(("use_parallel_residual",), flag, True),
            "theta": Option(("rope.rope_theta", "rotary_emb_base", "rope_theta"), positive, 10000.0),
            "rotated_share": Option(("rope.partial_rotary_factor", "rotary_pct"), share, 0.25),
        },
        ((r"^embed_in\.", "embed_tokens."), (r"^embed_out\.", "lm_head."), (r"^final_layer_norm\.", "norm."),
         (r"\.attention\.dense\.", ".self_attn.o_proj."), (r".*\.attention\.(masked_)?bias$", ""),
         (r"\.dense_h_to_4h\.", ".up_proj."), (r"\.dense_4h_to_h\.", ".down_proj.")),
        Part(r"(.*)\.attention\.query_key_value\.(\w+)", _SELF_ATTENTION, by_heads),
        known_by="layers.0.attention.query_key_value.weight",
    ),
    "gpt2": row(
        _LAYER_NORM | _ALL_BIASES | _TIED | {
            "heads": Option(("n_head", "num_attention_heads"), whole, 12), "groups": always(SameAs("heads")),
            "epsilon": Option(("layer_norm_epsilon",), positive, 1e-5), "head_size": always(None),
            "context": always(None), "activation": activation("gelu_new", "activation_function"),
            "gated": always(False), "rotary": always(False),
            "scale": Option(("scale_attn_weights",), either(0.0, 1.0), 0.0),
            "scale_by_layer": Option(("scale_attn_by_inverse_layer_idx",), flag, False),
        },
        ((r"^wte\.", "embed_tokens."), (r"^wpe\.", "embed_positions."), (r"^ln_f\.", "norm."), (r"^h\.", "layers."),
         (r".*\.attn\.(masked_)?bias$", ""), (r"\.attn\.c_proj\.", ".self_attn.o_proj."),
         (r"\.ln_1\.", ".input_layernorm."), (r"\.ln_2\.", ".post_attention_layernorm."),
         (r"\.mlp\.c_fc\.", ".mlp.up_proj."), (r"\.mlp\.c_proj\.", ".mlp.down_proj.")),
        Part(r"(.*)\.attn\.c_attn\.(\w+)", _SELF_ATTENTION, thirds),
        Part(r"(.*\.(?:o_proj|up_proj|down_proj)\.weight)", (r"\1",), transposed),
        known_by="h.0.attn.c_attn.weight",
        sizes={
            "layers": ("n_layer", "num_hidden_layers"), "hidden_size": ("n_embd", "hidden_size"),
            "vocabulary": ("vocab_size",), "intermediate_size": ("n_inner",), "positions": ("n_positions", "n_ctx"),
        },
        ignored="summary_type summary_use_proj summary_activation summary_proj_to_labels summary_first_dropout "
        "reorder_and_upcast_attn",
    ),
    "opt": row(
        _TIED | {
            "norm": always("layer"), "epsilon": always(1e-5), "groups": always(SameAs("heads")),
            "head_size": always(None), "context": always(None), "offset": always(2), "rotary": always(False),
            "activation": activation("relu", "activation_function"), "gated": always(False),
            "placement": Option(("do_layer_norm_before",), either("before", "after"), "before"),
            "last_norm": Option(("_remove_final_layer_norm",), either(False, True), True),
        } | dict.fromkeys(("qkv_bias", "output_bias", "mlp_bias"), Option(("enable_bias",), flag, True)),
        ((r"^decoder\.", ""), (r"\.self_attn_layer_norm\.", ".input_layernorm."), (r"\.out_proj\.", ".o_proj."),
         (r"\.final_layer_norm\.", ".post_attention_layernorm."), (r"^final_layer_norm\.", "norm."),
         (r"\.fc1\.", ".mlp.up_proj."), (r"\.fc2\.", ".mlp.down_proj.")),
        known_by="embed_positions.weight",
        sizes=SIZES | {
            "intermediate_size": ("ffn_dim",), "embedding_size": ("word_embed_proj_dim",),
            "positions": ("max_position_embeddings",),
        },
        fixed={"layer_norm_elementwise_affine": (True,)},
    ),
}  # fmt: skip
"""By model_type."""

NAMELESS = ("gpt2", "gpt_neox", "phi", "phi3", "opt", "llama")
"""Types that are known by a tensor where no config names one, in the order in which they are tried."""
