"""Llama, OPT and RWKV-4 beside Hugging Face's own: small random models saved by it, opened by us, the same logits."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from toolchain.model.catalog import LoadedModel, load_model
from toolchain.model.family import ModelOptions

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers")

STORIES = next(
    (p / "shared/models/stories260k-llama" for p in Path(__file__).parents if (p / "shared/models").is_dir()), None
)
VOCABULARY, TOKENS = 60, 40
EXACT = 1e-4
LLAMA = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48,
    "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 64, "tie_word_embeddings": False,
}  # fmt: skip
OPT = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "ffn_dim": 48, "num_attention_heads": 4,
    "max_position_embeddings": 64, "word_embed_proj_dim": 32,
}  # fmt: skip
RWKV = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "context_length": 64}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", LLAMA),
    "llama tied, two groups": ("Llama", LLAMA | {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "llama one group, wide heads": ("Llama", LLAMA | {"num_key_value_heads": 1, "head_dim": 12}),
    "llama with biases": ("Llama", LLAMA | {"attention_bias": True, "mlp_bias": True, "rope_theta": 500.0}),
    "opt": ("OPT", OPT),
    "opt untied": ("OPT", OPT | {"tie_word_embeddings": False}),
    "opt as 350m": ("OPT", OPT | {"do_layer_norm_before": False, "word_embed_proj_dim": 16}),
    "opt without biases": ("OPT", OPT | {"enable_bias": False}),
    "rwkv": ("Rwkv", RWKV),
}
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def saved(kind: str, sizes: dict[str, Any], folder: Path, dtype: torch.dtype = torch.float32, **how: Any) -> Any:
    """A random model as Hugging Face writes it, and as it reads it again."""
    torch.manual_seed(5)
    config = getattr(transformers, f"{kind}Config")(**sizes)
    made = getattr(transformers, f"{kind}ForCausalLM")(config)
    for p in made.parameters():
        p.data.add_(0.2 * torch.randn_like(p))
    made.to(dtype).save_pretrained(folder, **how)
    return opened(kind, folder)


def opened(kind: str, folder: Path) -> Any:
    return getattr(transformers, f"{kind}ForCausalLM").from_pretrained(folder, dtype=torch.float32).eval()


def tokens(vocabulary: int = VOCABULARY, count: int = TOKENS) -> Tensor:
    return torch.randint(0, vocabulary, (1, count), generator=torch.Generator().manual_seed(6))


def difference(theirs: Any, ours: LoadedModel, ids: Tensor) -> float:
    with torch.inference_mode():
        expected = theirs(ids).logits
        logits, _ = ours.forward(ids, ours.forward.initial_state())
    assert expected.std() > 0.3, "logits that say nothing prove nothing"
    return float((expected - logits).abs().max())


@pytest.fixture
def model_folder(tmp_path: Path, write_tokenizer: Callable[[Path, int], Path]) -> Path:
    """A folder with a tokenizer, for a model to be saved into."""
    write_tokenizer(tmp_path / "tokenizer.json", VOCABULARY)
    return tmp_path


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_hugging_face(model_folder: Path, case: str) -> None:
    kind, sizes = CASES[case]
    theirs = saved(kind, sizes, model_folder)
    ours = load_model(model_folder)
    assert difference(theirs, ours, tokens()) < EXACT
    assert ours.tree.params == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("kind", "sizes"), [("Llama", LLAMA), ("OPT", OPT)])
def test_shards_of_every_type(model_folder: Path, kind: str, sizes: dict[str, Any], dtype: str) -> None:
    theirs = saved(kind, sizes, model_folder, DTYPES[dtype], max_shard_size="12KB")
    assert len(list(model_folder.glob("*.safetensors"))) > 2
    assert difference(theirs, load_model(model_folder), tokens()) < EXACT


def test_the_trained_model_of_260_thousand_parameters() -> None:
    if STORIES is None:
        pytest.skip("shared/models/stories260k-llama is not here")
    ours = load_model(STORIES)
    assert difference(opened("Llama", STORIES), ours, tokens(512, 300)) < EXACT
    assert ours.tree.params == 260_032 and ours.forward.context == 512


@pytest.mark.parametrize("case", ["llama tied, two groups", "opt", "rwkv"])
def test_one_call_chunks_and_single_tokens_agree(model_folder: Path, case: str) -> None:
    saved(*CASES[case], model_folder)
    model, ids = load_model(model_folder).forward, tokens()
    with torch.inference_mode():
        whole, _ = model(ids, model.initial_state())
        for sizes in ([1] * TOKENS, [7, 1, 20, 12]):
            state, parts = model.initial_state(), []
            for start, stop in itertools.pairwise(itertools.accumulate(sizes, initial=0)):
                logits, state = model(ids[:, start:stop], state)
                parts.append(logits)
            assert (torch.cat(parts, 1) - whole).abs().max() < 1e-4


@pytest.mark.parametrize("prefix", ["", "transformer.", "module.model."])
def test_other_common_names(model_folder: Path, prefix: str) -> None:
    theirs = saved("Llama", LLAMA, model_folder)
    (model_folder / "model.safetensors").unlink()
    renamed = {prefix + name.removeprefix("model."): t for name, t in theirs.state_dict().items()}
    renamed[f"{prefix}layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    torch.save(renamed, model_folder / "pytorch_model.bin")
    assert difference(theirs, load_model(model_folder), tokens()) < EXACT


def test_a_context_of_the_users_own(model_folder: Path) -> None:
    theirs = saved("Llama", LLAMA, model_folder)
    ours = load_model(model_folder, options=ModelOptions(context=TOKENS))
    assert ours.forward.context == TOKENS
    assert ours.tree.state_values == 1 + 2 * 2 * 32 * TOKENS
    assert difference(theirs, ours, tokens()) < EXACT
