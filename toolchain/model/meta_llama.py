"""Llama weights as Meta and llama2.c save them: other names, and rotary positions that turn neighbours, not halves."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from exporters.artifact.errors import SlmcError
from toolchain.model.checkpoint import Checkpoint
from toolchain.model.config import matrix, without_wrappers
from toolchain.model.options import whole

TELLTALE = "layers.0.attention.wq.weight"

_NAMES = (
    (r"^tok_embeddings\.", "embed_tokens."),
    (r"^output\.", "lm_head."),
    (r"\.attention\.w([qkvo])\.", r".self_attn.\1_proj."),
    (r"\.feed_forward\.w1\.", ".mlp.gate_proj."),
    (r"\.feed_forward\.w2\.", ".mlp.down_proj."),
    (r"\.feed_forward\.w3\.", ".mlp.up_proj."),
    (r"\.attention_norm\.", ".input_layernorm."),
    (r"\.ffn_norm\.", ".post_attention_layernorm."),
)
"""Meta's names, as patterns, to those of Hugging Face."""

_TURNED = re.compile(r"\.attention\.w[qk]\.weight$")

_KEYS = {
    "n_heads": "num_attention_heads", "n_kv_heads": "num_key_value_heads", "norm_eps": "rms_norm_eps",
    "rope_theta": "rope_theta", "max_seq_len": "max_position_embeddings",
}  # fmt: skip
"""Keys of params.json to those of config.json; sizes come from the weights."""

CONTEXT = 2048
"""Tokens that a model reads at once where params.json does not say: what the first Llama was trained on."""


def from_meta(checkpoint: Checkpoint, config: Mapping[str, Any]) -> tuple[Checkpoint, Mapping[str, Any]]:
    """A checkpoint and its config under the names of Hugging Face; all others as they are.

    The weights of queries and keys are put into the order that turns halves: row i of the first half of a head is its
    row 2i, row i of the second half its row 2i + 1.

    Raises:
        SlmcError: the number of heads is not said, or does not fit, so that the order cannot be known.
    """
    named = {name: without_wrappers(name) for name in checkpoint.tensors}
    if TELLTALE not in named.values():
        return checkpoint, config
    if "rope_scaling" in config or config.get("use_scaled_rope"):
        raise SlmcError(f"{checkpoint.path}: scaled rotary positions are not supported; use a model without them")
    renamed = {_KEYS.get(key, key): value for key, value in config.items()}
    config = {"model_type": "llama", "max_position_embeddings": CONTEXT} | renamed
    if "num_attention_heads" not in config:
        raise SlmcError(
            f"{checkpoint.path}: weights under Meta's names, whose rotary positions need the number of heads; put a "
            "params.json with n_heads (and n_kv_heads) or a config.json beside them and give the directory"
        )
    heads = whole("num_attention_heads", config["num_attention_heads"])
    groups = whole("num_key_value_heads", config.get("num_key_value_heads") or heads)
    config = config | {"num_key_value_heads": groups}
    tensors: dict[str, Tensor] = {}
    places: dict[str, Callable[[], Tensor]] = {}
    for old, name in named.items():
        new = _renamed(name)
        if new is None:
            continue
        turned = {"q": heads, "k": groups}.get(name[-len("q.weight")]) if _TURNED.search(name) else None
        tensors[new] = checkpoint.tensors[old]
        if old in checkpoint.places:
            places[new] = checkpoint.places[old]
        if turned:
            tensors[new] = _in_halves(tensors[new], turned, checkpoint, old)
            if new in places:
                places[new] = _turning(places[new], turned)
    return dataclasses.replace(checkpoint, tensors=tensors, places=places), config


def _renamed(name: str) -> str | None:
    for pattern, new in _NAMES:
        name = re.sub(pattern, new, name)
    return None if name in ("rope.freqs", "freqs_cis", "freqs_cos", "freqs_sin") else name


def in_halves(weight: Tensor, heads: int) -> Tensor:
    """Rows [heads * width, cols] of pairs of neighbours, (0, 1), (2, 3) ..., as two halves of every head."""
    rows, cols = weight.shape
    return weight.view(heads, rows // heads // 2, 2, cols).transpose(1, 2).reshape(rows, cols)


def _turning(read: Callable[[], Tensor], heads: int) -> Callable[[], Tensor]:
    return lambda: in_halves(read(), heads)


def _in_halves(weight: Tensor, heads: int, checkpoint: Checkpoint, name: str) -> Tensor:
    rows, _ = matrix({name: tuple(weight.shape)}, name)
    if rows % (2 * heads):
        raise SlmcError(f"{checkpoint.path}: {name} has {rows} rows, which {heads} heads of even width cannot divide")
    return in_halves(weight, heads)
