"""Small configurations of every model type of the decoder: three or more of each, which set all its options."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

VOCABULARY, WINDOW = 60, 24
LLAMA3 = {
    "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
    "rope_type": "llama3",
}  # fmt: skip
LINEAR = {"type": "linear", "factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 5000.0}
LONG = {"rope_type": "longrope", "short_factor": [1.0, 1.5, 2.0, 3.0], "long_factor": [2.0, 4.0, 6.0, 8.0]}
_SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_SPECIAL: dict[str, tuple[dict[str, Any], str]] = {
    "opt": ({"ffn_dim": 48, "word_embed_proj_dim": 32}, "intermediate_size num_key_value_heads"),
    "gpt2": (
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
        "hidden_size num_hidden_layers intermediate_size num_attention_heads num_key_value_heads "
        "max_position_embeddings",
    ),
    "gpt_neox": ({}, "num_key_value_heads"),
}
_FULL_BY_LAYER = ["full_attention", "sliding_attention"]
_BASES = {
    "full_attention": {"rope_type": "default", "rope_theta": 5000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
}

CASES: dict[str, list[dict[str, Any]]] = {
    "llama": [
        {"rope_scaling": LLAMA3, "rope_theta": 500000.0, "rms_norm_eps": 1e-3, "head_dim": 16},
        {"attention_bias": True, "mlp_bias": True, "hidden_act": "relu2", "num_key_value_heads": 1},
        {"rope_scaling": {"type": "dynamic", "factor": 8.0}, "num_key_value_heads": None, "hidden_act": "gelu"},
        {"rope_parameters": YARN, "num_key_value_heads": 4},
        {"rope_scaling": LINEAR, "hidden_act": "gelu_pytorch_tanh"},
        {"rope_scaling": LONG | {"original_max_position_embeddings": 100}, "max_position_embeddings": 256},
    ],
    "mistral": [
        {"sliding_window": WINDOW},
        {"sliding_window": None, "head_dim": 12, "rope_theta": 1000000.0},
        {"num_key_value_heads": 4, "max_position_embeddings": 200, "sliding_window": 8},
    ],
    "qwen2": [
        {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
        {"sliding_window": 8, "max_window_layers": 0, "num_key_value_heads": 4},
        {"use_sliding_window": True, "sliding_window": WINDOW, "layer_types": _FULL_BY_LAYER[::-1]},
    ],
    "qwen3": [
        {"head_dim": 16, "attention_bias": True},
        {"head_dim": 12, "use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
        {"use_sliding_window": True, "sliding_window": 8, "layer_types": _FULL_BY_LAYER, "num_key_value_heads": 1,
         "head_dim": 8},
    ],
    "smollm3": [
        {"no_rope_layer_interval": 2, "num_key_value_heads": 1},
        {"no_rope_layers": [0, 1], "attention_bias": True, "mlp_bias": True, "use_sliding_window": True,
         "sliding_window": WINDOW},
        {"layer_types": _FULL_BY_LAYER, "use_sliding_window": True, "sliding_window": WINDOW, "rope_theta": 700.0},
    ],
    "granite": [
        {"attention_multiplier": 0.3, "embedding_multiplier": 3.0, "residual_multiplier": 0.4, "logits_scaling": 0.5},
        {"attention_bias": True, "mlp_bias": True, "rope_scaling": LINEAR},
        {"num_key_value_heads": None, "attention_multiplier": 0.05, "rms_norm_eps": 1e-4},
    ],
    "olmo2": [{}, {"attention_bias": True, "rms_norm_eps": 1e-3}, {"num_key_value_heads": None, "rope_theta": 5e5}],
    "gemma2": [
        {"head_dim": 12, "sliding_window": WINDOW, "query_pre_attn_scalar": 20, "num_key_value_heads": 1},
        {"head_dim": 8, "attn_logit_softcapping": None, "final_logit_softcapping": None, "attention_bias": True},
        {"head_dim": 8, "attn_logit_softcapping": 3.0, "final_logit_softcapping": 4.0, "sliding_window": 8,
         "layer_types": _FULL_BY_LAYER, "hidden_activation": "relu", "query_pre_attn_scalar": 8},
    ],
    "gemma3_text": [
        {"head_dim": 12, "sliding_window": WINDOW, "query_pre_attn_scalar": 20, "sliding_window_pattern": 2,
         "rope_scaling": {"rope_type": "linear", "factor": 4.0}, "rope_local_base_freq": 500.0, "rope_theta": 9000.0},
        {"head_dim": 8, "sliding_window": 8, "final_logit_softcapping": 5.0, "rope_parameters": _BASES,
         "layer_types": _FULL_BY_LAYER},
        {"head_dim": 8, "attention_bias": True, "hidden_activation": "gelu", "num_key_value_heads": 1},
    ],
    "phi3": [
        {"sliding_window": WINDOW, "rms_norm_eps": 1e-3},
        {"partial_rotary_factor": 0.5, "num_key_value_heads": None},
        {"rope_scaling": LONG | {"factor": 2.0, "attention_factor": 1.2}, "num_key_value_heads": 1,
         "max_position_embeddings": 256, "original_max_position_embeddings": 100},
        {"rope_scaling": LONG, "max_position_embeddings": 256, "original_max_position_embeddings": 100},
    ],
    "phi": [
        {"layer_norm_eps": 1e-3},
        {"qk_layernorm": True, "partial_rotary_factor": 1.0},
        {"partial_rotary_factor": 0.25, "hidden_act": "gelu", "num_key_value_heads": 4},
    ],
    "stablelm": [
        {"use_qkv_bias": True, "layer_norm_eps": 1e-3},
        {"qk_layernorm": True, "use_parallel_residual": True},
        {"partial_rotary_factor": 0.5, "rope_scaling": LLAMA3, "num_key_value_heads": 4},
    ],
    "starcoder2": [
        {"sliding_window": WINDOW, "norm_epsilon": 1e-3},
        {"use_bias": False, "hidden_act": "relu"},
        {"num_key_value_heads": 4, "rope_theta": 700.0, "max_position_embeddings": 200},
    ],
    "gpt_neox": [
        {"layer_norm_eps": 1e-3},
        {"use_parallel_residual": False, "attention_bias": False, "rotary_pct": 1.0, "hidden_act": "gelu_new"},
        {"rotary_emb_base": 500.0, "rope_scaling": LINEAR, "rotary_pct": 0.5},
    ],
    "gpt2": [
        {"layer_norm_epsilon": 1e-3},
        {"scale_attn_weights": False, "n_inner": 40, "activation_function": "relu"},
        {"scale_attn_by_inverse_layer_idx": True, "activation_function": "gelu", "n_head": 2},
    ],
    "opt": [
        {},
        {"do_layer_norm_before": False, "word_embed_proj_dim": 16},
        {"enable_bias": False, "_remove_final_layer_norm": True, "activation_function": "gelu"},
    ],
}  # fmt: skip
"""By model_type."""


def config_of(kind: str, said: dict[str, Any]) -> dict[str, Any]:
    """A whole config.json; a value of Ellipsis leaves its key out."""
    own, without = _SPECIAL.get(kind, ({}, ""))
    sizes = {key: value for key, value in _SIZES.items() if key not in without.split()}
    return {k: v for k, v in (sizes | own | {"model_type": kind} | said).items() if v is not ...}


def saved(
    config: dict[str, Any], folder: Path, dtype: str = "float32", head: str = "CausalLM", shard: str = "1GB"
) -> Any:
    """A random model whose config.json says this, saved by transformers; as transformers reads it again, in float32."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    for old in folder.glob("model*"):
        old.unlink()
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(5)
    auto = getattr(transformers, f"AutoModelFor{head}")
    model = auto.from_config(transformers.AutoConfig.from_pretrained(folder))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and "embed" not in name:
            parameter.data.mul_(6.0)
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=shard)
    (folder / "config.json").write_text(json.dumps(config))
    return auto.from_pretrained(folder, dtype=torch.float32).eval()
