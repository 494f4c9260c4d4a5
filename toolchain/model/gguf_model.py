"""GGUF files (github.com/ggml-org/ggml, docs/gguf.md): weights, options, tokenizer and chat template of a decoder."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from exporters.artifact.errors import SlmcError
from targets.device.memory import available_bytes
from targets.device.quantities import bytes_text
from targets.device.verify import file_sha256
from toolchain.model.checkpoint import Checkpoint
from toolchain.model.decoder_tensors import Heads, Part, apart, halves, queries_keys_values
from toolchain.model.decoder_types import TYPES, ModelType
from toolchain.model.gguf_tokenizer import tokenizer_config, tokenizer_document
from toolchain.model.meta_llama import in_halves

MAGIC = b"GGUF"


@dataclass(frozen=True)
class Architecture:
    """What llama.cpp calls a model type. neighbours: rows of queries and keys lie so that rotary positions turn
    neighbours, not halves. fused_up: the MLP's gate and up are one tensor. head_norm: where norms of queries and keys
    have their weight. keys: more of its metadata as config.json
    calls it. present: options that are true if a tensor is there, false if not; absent: the other way."""

    model_type: str
    neighbours: bool = False
    fused_up: bool = False
    head_norm: str = ".norm"
    keys: Mapping[str, str] | None = None
    present: Mapping[str, str] | None = None
    absent: Mapping[str, str] | None = None


_BIASES = {"attention_bias": "layers.0.self_attn.q_proj.bias"}
ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture("llama", neighbours=True, present=_BIASES | {"mlp_bias": "layers.0.mlp.up_proj.bias"}),
    "qwen2": Architecture("qwen2"),
    "qwen3": Architecture("qwen3", present=_BIASES),
    "smollm3": Architecture("smollm3", neighbours=True),
    "granite": Architecture("granite", neighbours=True, keys={
        "attention.scale": "attention_multiplier", "embedding_scale": "embedding_multiplier",
        "residual_scale": "residual_multiplier", "logit_scale": "logits_scaling",
    }),
    "olmo2": Architecture("olmo2", head_norm=""),
    "gemma2": Architecture("gemma2", keys={
        "attention.sliding_window": "sliding_window", "attn_logit_softcapping": "attn_logit_softcapping",
        "final_logit_softcapping": "final_logit_softcapping", "attention.key_length": "query_pre_attn_scalar",
    }),
    "gemma3": Architecture("gemma3_text", keys={
        "attention.sliding_window": "sliding_window", "attention.key_length": "query_pre_attn_scalar",
    }),
    "phi2": Architecture("phi"),
    "phi3": Architecture("phi3", fused_up=True, keys={"attention.sliding_window": "sliding_window"}),
    "stablelm": Architecture("stablelm", head_norm="", absent={
        "use_parallel_residual": "layers.0.post_attention_layernorm.weight",
    }, present={
        "use_qkv_bias": "layers.0.self_attn.q_proj.bias", "qk_layernorm": "layers.0.self_attn.q_norm.weight",
    }),
    "starcoder2": Architecture("starcoder2"),
    "gptneox": Architecture("gpt_neox", keys={"use_parallel_residual": "use_parallel_residual"}),
    "gpt2": Architecture("gpt2"),
}  # fmt: skip
"""By `general.architecture`."""

_OPTIONS = {
    "context_length": "context", "attention.head_count": "heads", "attention.head_count_kv": "groups",
    "attention.key_length": "head_size", "attention.layer_norm_rms_epsilon": "epsilon",
    "attention.layer_norm_epsilon": "epsilon", "rope.freq_base": "theta",
}  # fmt: skip
_SIZES = {"embedding_length": "hidden_size", "feed_forward_length": "intermediate_size"}
"""Metadata by our names for it, which a row turns into config.json's."""

_NAMES = (
    (r"^token_embd\.", "embed_tokens."), (r"^position_embd\.", "embed_positions."), (r"^output_norm\.", "norm."),
    (r"^output\.", "lm_head."), (r"^blk\.", "layers."), (r"\.attn_([qkv])\.", r".self_attn.\1_proj."),
    (r"\.attn_output\.", ".self_attn.o_proj."), (r"\.attn_qkv\.", ".self_attn.qkv."),
    (r"\.attn_([qk])_norm\.", r".self_attn.\1_norm@."), (r"\.attn_norm\.", ".input_layernorm."),
    (r"\.ffn_norm\.", ".post_attention_layernorm."), (r"\.post_attention_norm\.", ".attention_output_norm."),
    (r"\.post_ffw_norm\.", ".mlp_output_norm."), (r"\.ffn_(gate|up|down)\.", r".mlp.\1_proj."),
)  # fmt: skip
_QKV = Part(r"(.*self_attn)\.qkv\.(\w+)", (r"\1.q_proj.\2", r"\1.k_proj.\2", r"\1.v_proj.\2"), queries_keys_values)
_GATE_UP = Part(r"(.*mlp)\.up_proj\.(\w+)", (r"\1.gate_proj.\2", r"\1.up_proj.\2"), halves)


@dataclass(frozen=True)
class GgufModel:
    """What a file says: tensors under the decoder's own names, a config.json, a tokenizer.json (or why there is none),
    a tokenizer_config.json, and what the weights are."""

    checkpoint: Checkpoint
    config: Mapping[str, Any]
    tokenizer: bytes | None
    tokenizer_config: Mapping[str, Any]
    origin: str


def is_gguf(path: Path) -> bool:
    """Whether a file begins as GGUF files do."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == MAGIC


def read_gguf(path: Path, own_tokenizer: bool = True) -> GgufModel:
    """The model of a GGUF file, its weights dequantised.

    Args:
        own_tokenizer: whether its tokenizer is read.

    Raises:
        SlmcError: the library is missing, the file is damaged, of an architecture that no row knows, or too large.
    """
    try:
        import gguf
    except ImportError as error:
        raise SlmcError(f"{path}: GGUF files are read with the gguf package; pip install 'slmc[gguf]'") from error
    try:
        reader = gguf.GGUFReader(path)
        said = {name: field.contents() for name, field in reader.fields.items()}
        kinds = Counter(t.tensor_type.name for t in reader.tensors)
        values = sum(int(t.n_elements) for t in reader.tensors)
    except Exception as error:  # the library raises whatever it stumbles over in a damaged file
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise SlmcError(f"{path}: no GGUF file, or truncated ({reason}); copy it again") from error
    name = str(said.get("general.architecture"))
    if name not in ARCHITECTURES:
        raise SlmcError(
            f"{path}: general.architecture is {name!r}; GGUF files are read of {', '.join(ARCHITECTURES)}: give the "
            "original model's folder"
        )
    room = available_bytes()
    if room is not None and 4 * values > room:
        raise SlmcError(
            f"{path}: dequantised it takes {bytes_text(4 * values)}, and {bytes_text(room)} are available; give the "
            "original model's folder, whose matrices can stay on disk"
        )
    tensors = {}
    for stored in reader.tensors:
        tensors[stored.name] = _dequantised(path, stored, gguf.dequantize)
    types = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    origin = f"dequantised from GGUF ({types}); the reference is what the file holds"
    try:
        checkpoint, config = _model(ARCHITECTURES[name], name, said, Checkpoint(path, tensors, file_sha256(path)))
        tokenizer = tokenizer_document(path, said) if own_tokenizer else None
        return GgufModel(checkpoint, config, tokenizer, tokenizer_config(said), origin)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, RuntimeError, ZeroDivisionError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise SlmcError(f"{path}: metadata that do not fit together ({reason}); copy it again") from error


def _dequantised(path: Path, stored: Any, dequantize: Any) -> Tensor:
    try:
        values = dequantize(stored.data, stored.tensor_type)
        tensor = torch.from_numpy(values if values.flags.writeable else values.copy()).to(torch.float32)
    except Exception as error:  # of types that the library only names
        raise SlmcError(
            f"{path}: {stored.name} is of type {stored.tensor_type.name}, which the gguf package does not dequantise"
        ) from error
    bad = int((~torch.isfinite(tensor)).sum())
    if bad:
        raise SlmcError(f"{path}: {stored.name} holds {bad} values that are NaN or infinite; copy it again")
    return tensor


def _model(
    architecture: Architecture, name: str, said: Mapping[str, Any], checkpoint: Checkpoint
) -> tuple[Checkpoint, Mapping[str, Any]]:
    """Tensors under the decoder's own names, and metadata under config.json's keys."""
    own = {key.removeprefix(f"{name}."): value for key, value in said.items() if key.startswith(f"{name}.")}
    heads = own.get("attention.head_count")
    groups = own.get("attention.head_count_kv", heads)
    if not (isinstance(heads, int) and isinstance(groups, int) and heads > 0 and groups > 0):
        raise SlmcError(f"{checkpoint.path}: {heads!r} heads in {groups!r} groups; one number for all layers is needed")
    row = TYPES[architecture.model_type]
    config: dict[str, Any] = {"model_type": architecture.model_type}
    config |= {place: own[k] for k, option in _OPTIONS.items() if k in own and (place := _place(row, option))}
    config |= {row.sizes[size][0]: own[key] for key, size in _SIZES.items() if key in own}
    config |= {new: own[key] for key, new in (architecture.keys or {}).items() if key in own}
    config["tie_word_embeddings"] = "output.weight" not in checkpoint.tensors
    size = own.get("attention.key_length") or own["embedding_length"] // heads
    turned, share = own.get("rope.dimension_count", size), _place(row, "rotated_share")
    if turned != size and share is None:
        raise SlmcError(f"{checkpoint.path}: {turned} of {size} channels of a head are turned, and {name} turns all")
    if turned != size:
        config[str(share)] = turned / size
    if scaling := _scaling(own, checkpoint.tensors):
        config["rope_scaling"] = scaling
    named = _named(checkpoint, architecture, Heads(heads, groups))
    config |= {option: tensor in named.tensors for option, tensor in (architecture.present or {}).items()}
    config |= {option: tensor not in named.tensors for option, tensor in (architecture.absent or {}).items()}
    return named, config


def _place(row: ModelType, option: str) -> str | None:
    """Where config.json says an option at its top; None if a model type does not leave it open."""
    return next((place for place in row.options.read[option].places if "." not in place), None)


def _scaling(own: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """Rotary frequencies that a base does not say: a factor, or a tensor of them."""
    factors = tensors.get("rope_freqs.weight", tensors.get("rope_factors_short.weight"))
    first = own.get("rope.scaling.original_context_length", own.get("context_length"))
    if factors is not None:
        attention = own.get("rope.scaling.attn_factor", 1.0)
        return {
            "rope_type": "longrope", "short_factor": factors.tolist(), "attention_factor": attention,
            "original_max_position_embeddings": first,
        }  # fmt: skip
    kind = own.get("rope.scaling.type", "none")
    if kind == "none":
        return None
    given = {"rope_type": kind, "factor": own.get("rope.scaling.factor")}
    return given | ({"original_max_position_embeddings": first} if kind == "yarn" else {})


def _named(checkpoint: Checkpoint, architecture: Architecture, heads: Heads) -> Checkpoint:
    """The decoder's own names, fused tensors taken apart, rows of queries and keys in halves."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in checkpoint.tensors.items():
        for pattern, new in _NAMES:
            name = re.sub(pattern, new.replace("@", architecture.head_norm), name)
        if not name.startswith("rope_"):
            tensors[name] = tensor
    for name in tensors if architecture.neighbours else ():
        for which, count in (("q", heads.heads), ("k", heads.groups)):
            if f".{which}_proj." in name:
                tensors[name] = _halves(tensors[name], count)
    whole = Checkpoint(checkpoint.path, tensors, checkpoint.sha256)
    parts: Sequence[Part] = (_QKV, _GATE_UP) if architecture.fused_up else (_QKV,)
    for part in parts:
        whole = apart(whole, part, heads)
    return whole


def _halves(tensor: Tensor, heads: int) -> Tensor:
    if tensor.shape[0] % (2 * heads):
        raise ValueError(f"{tensor.shape[0]} rows of queries or keys, which {heads} heads of even width cannot divide")
    return in_halves(tensor.view(tensor.shape[0], -1), heads).view(tensor.shape)
