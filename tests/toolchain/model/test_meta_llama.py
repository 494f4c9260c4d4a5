"""Llama weights under Meta's names: converted to the very model, or refused where the order of rows is not known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from decoders import llama_config
from safetensors.torch import save_file
from torch import Tensor

from exporters.artifact.errors import SlmcError
from toolchain.model.cache import Rotation, attend
from toolchain.model.catalog import load_model
from toolchain.model.decoder import Decoder
from toolchain.model.meta_llama import in_halves

HEADS, GROUPS, WIDTH = 4, 2, 4
PARAMS = {"dim": 16, "n_layers": 2, "n_heads": HEADS, "n_kv_heads": GROUPS, "norm_eps": 1e-5, "max_seq_len": 32}
NAMES = {
    "self_attn.q_proj": "attention.wq", "self_attn.k_proj": "attention.wk", "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo", "mlp.gate_proj": "feed_forward.w1", "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3", "input_layernorm": "attention_norm", "post_attention_layernorm": "ffn_norm",
    "embed_tokens": "tok_embeddings", "lm_head": "output",
}  # fmt: skip
Writer = Callable[..., Path]


def made() -> Decoder:
    torch.manual_seed(2)
    sizes = {"heads": HEADS, "groups": GROUPS, "head_size": WIDTH, "context": 32}
    return Decoder(llama_config(2, 16, 24, 20, **sizes, epsilon=1e-5)).eval()


def in_neighbours(weight: Tensor, heads: int) -> Tensor:
    """Row by row: what turns with each other lies side by side."""
    result, half = torch.empty_like(weight), weight.shape[0] // heads // 2
    for head in range(heads):
        for i in range(half):
            result[(head * half + i) * 2] = weight[head * 2 * half + i]
            result[(head * half + i) * 2 + 1] = weight[head * 2 * half + half + i]
    return result


def as_meta(module: Decoder) -> dict[str, Tensor]:
    tensors = {}
    for name, tensor in module.state_dict().items():
        for ours, meta in NAMES.items():
            name = name.replace(ours, meta)
        turned = {"wq": HEADS, "wk": GROUPS}.get(name.split(".")[-2])
        tensors[name] = in_neighbours(tensor, turned) if turned else tensor
    return tensors | {"rope.freqs": torch.ones(2)}


@pytest.fixture
def written(tmp_path: Path, write_tokenizer: Callable[[Path, int], Path]) -> Writer:
    """Writes the model as Meta's directory with these params.json; or as llama2.c's checkpoint, prefixes and all."""

    def write(params: dict[str, Any] | None = PARAMS, *, prefix: str = "", suffix: str = ".safetensors") -> Path:
        tensors = {prefix + name: t for name, t in as_meta(made()).items()}
        if suffix == ".safetensors":
            save_file(tensors, tmp_path / "model.safetensors")
        else:
            torch.save({"model": tensors, "model_args": {"dim": 16}, "iter_num": 3}, tmp_path / "ckpt.pth")
        if params is not None:
            (tmp_path / "params.json").write_text(json.dumps(params))
        write_tokenizer(tmp_path / "tokenizer.json", 20)
        return tmp_path

    return write


@pytest.mark.parametrize("room", [2**40, 1], ids=["memory", "disk"])
@pytest.mark.parametrize(("prefix", "suffix"), [("", ".safetensors"), ("_orig_mod.", ".pth"), ("module.", ".pth")])
def test_logits_are_those_of_the_same_model(written: Writer, prefix: str, suffix: str, room: int) -> None:
    expected = made()
    found = load_model(written(prefix=prefix, suffix=suffix), room=room)
    ids = torch.arange(30)[None] % 20
    with torch.inference_mode():
        logits, _ = found.forward(ids, found.forward.initial_state())
        assert torch.equal(logits, expected(ids, expected.initial_state())[0])
    assert found.forward.context == 32


def test_turned_neighbours_attend_as_turned_halves() -> None:
    """The scores of Meta's complex product, computed here, and those of our operator on converted rows."""
    torch.manual_seed(3)
    time, width, theta = 5, 8, 10000.0
    x, wq, wk = torch.randn(time, 6), torch.randn(width, 6), torch.randn(width, 6)
    angles = torch.outer(torch.arange(time).float(), theta ** (-torch.arange(0, width, 2).float() / width))
    turn = torch.polar(torch.ones_like(angles), angles)
    q, k = (torch.view_as_complex((x @ w.t()).view(time, -1, 2)) * turn for w in (wq, wk))
    scores = (q[:, None] * k[None].conj()).real.sum(-1) / width**0.5
    scores = scores.masked_fill(torch.ones(time, time).triu(1).bool(), -torch.inf)
    expected = scores.softmax(-1) @ torch.eye(time, width)
    cache = torch.zeros(1, 1, time, width)
    ours = [(x @ in_halves(w, 1).t())[None] for w in (wq, wk)]
    values = torch.eye(time, width)[None]
    start = torch.zeros(1, 1, dtype=torch.int64)
    y, _ = attend(*ours, values, [cache, cache.clone()], start, 1, Rotation(theta))
    assert (y[0] - expected).abs().max() < 1e-5


REFUSED = [
    (None, "need the number of heads; put a params.json with n_heads"),
    ({"dim": 16}, "need the number of heads"),
    (PARAMS | {"n_heads": 3}, "wq.weight has 16 rows, which 3 heads of even width cannot divide"),
    (PARAMS | {"n_heads": 0}, "num_attention_heads is 0; a number above 0 is needed"),
    (PARAMS | {"use_scaled_rope": True}, "scaled rotary positions are not supported"),
    (PARAMS | {"n_kv_heads": 1}, "4 heads in 1 groups of width 4 do not fit the weights"),
]


@pytest.mark.parametrize(("params", "said"), REFUSED, ids=lambda v: str(v)[-40:])
def test_what_is_not_known_is_refused(written: Writer, params: dict[str, Any] | None, said: str) -> None:
    with pytest.raises(SlmcError, match=said):
        load_model(written(params))
