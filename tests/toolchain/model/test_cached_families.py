"""What Llama and OPT refuse before any work, how they are divided into layers, and what their caches take."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from decoders import llama_config, opt_config
from safetensors.torch import save_file
from torch import Tensor

from exporters.artifact.errors import SlmcError
from exporters.states import StateSpec
from toolchain.model.catalog import load_model
from toolchain.model.decoder import Decoder
from toolchain.model.family import ModelOptions

TINY = llama_config(2, 8, 12, 20, heads=4, groups=2, head_size=2, context=16)
OPT = opt_config(2, 8, 12, 20, embedding=6, heads=4, positions=16)
CONFIG: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 16},
    "opt": {"model_type": "opt", "num_attention_heads": 4, "tie_word_embeddings": False},
}
Writer = Callable[..., Path]


@pytest.fixture
def written(tmp_path: Path, write_tokenizer: Callable[[Path, int], Path]) -> Writer:
    """Writes a random model as a directory, its config and tensors changed as asked; a change to None leaves out."""

    def write(kind: str = "llama", config: Any = None, tensors: dict[str, Tensor | None] | None = None) -> Path:
        module = Decoder(TINY if kind == "llama" else OPT)
        found: dict[str, Any] = module.state_dict() | (tensors or {})
        save_file({name: t for name, t in found.items() if t is not None}, tmp_path / "model.safetensors")
        values = CONFIG[kind] | (config or {})
        (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in values.items() if v != "leave out"}))
        write_tokenizer(tmp_path / "tokenizer.json", 20)
        return tmp_path

    return write


def refusal(folder: Path, **options: Any) -> str:
    with pytest.raises(SlmcError) as caught:
        load_model(folder, options=ModelOptions(**options))
    assert caught.value.exit_code == 2
    return str(caught.value)


REFUSED = [
    ("llama", {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor is None, high_freq_factor"),
    ("llama", {"rope_parameters": {"type": "su"}}, "type is 'su', which is not supported; supported: 'def"),
    ("llama", {"rope_scaling": {"rope_type": "linear"}}, "factor is missing, which rope_type 'linear' needs"),
    ("llama", {"rope_parameters": {"mrope_section": [1]}}, "rope_parameters has mrope_section, which is not"),
    ("llama", {"rope_scaling": 4.0}, "rope_scaling is 4.0; an object is needed"),
    ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5, which is not supported; supported: none"),
    ("llama", {"logits_scaling": 8.0}, "logits_scaling is 8.0, which is not supported; supported: none, 1"),
    (
        "llama",
        {"model_type": "qwen2", "layer_types": ["linear_attention"]},
        "layer_types is 'linear_attention', which",
    ),
    (
        "llama",
        {"model_type": "mistral", "sliding_window": "wide"},
        "sliding_window is 'wide'; a number above 0 is",
    ),
    ("llama", {"hidden_act": "tanh"}, "hidden_act is 'tanh', which is not supported; supported: 'silu', 'swish'"),
    ("llama", {"quantization_config": {"bits": 4}}, "quantization_config"),
    ("llama", {"attention_bias": "yes"}, "attention_bias is 'yes'; true or false is needed"),
    ("llama", {"num_attention_heads": "leave out"}, "num_attention_heads is missing; a number above 0 is needed"),
    ("llama", {"max_position_embeddings": 0}, "max_position_embeddings is 0; a number above 0 is needed"),
    ("llama", {"max_position_embeddings": 1.5}, "max_position_embeddings is 1.5; a whole number above 0 is needed"),
    ("llama", {"rms_norm_eps": float("nan")}, "rms_norm_eps is nan"),
    ("llama", {"rope_parameters": {"rope_theta": -1}}, "rope_theta is -1"),
    ("llama", {"num_key_value_heads": 4}, "4 heads in 4 groups of width 2 do not fit the weights, 8 query and 4 key"),
    ("llama", {"num_attention_heads": 3}, "3 heads cannot divide a width of 8"),
    ("llama", {"hidden_size": 64}, "hidden_size is 64, but the weights have 8"),
    ("llama", {"num_hidden_layers": 3}, "num_hidden_layers is 3, but the weights have 2"),
    ("llama", {"vocab_size": 21}, "vocab_size is 21, but the weights have 20"),
    ("opt", {"activation_function": "elu"}, "activation_function is 'elu', which is not supported"),
    ("opt", {"layer_norm_elementwise_affine": False}, "layer_norm_elementwise_affine is False"),
    ("opt", {"max_position_embeddings": 64}, "max_position_embeddings is 64, but the weights have 16"),
    ("opt", {"word_embed_proj_dim": 8}, "word_embed_proj_dim is 8, but the weights have 6"),
    ("opt", {"num_attention_heads": 3}, "3 heads cannot divide a width of 8"),
]


@pytest.mark.parametrize(("kind", "config", "said"), REFUSED, ids=lambda v: str(v)[:40])
def test_configs_that_are_not_supported(written: Writer, kind: str, config: dict[str, Any], said: str) -> None:
    assert said in refusal(written(kind, config))


def test_missing_and_unknown_tensors(written: Writer) -> None:
    folder = written(tensors={"layers.1.mlp.up_proj.weight": None, "layers.1.self_attn.q_norm.weight": torch.ones(2)})
    said = refusal(folder)
    assert "1 tensors missing, 1 unknown" in said
    assert "missing layers.1.mlp.up_proj.weight; unknown layers.1.self_attn.q_norm.weight" in said


def test_a_missing_tensor_that_sizes_come_from(written: Writer) -> None:
    folder = written(tensors={"layers.0.self_attn.k_proj.weight": None})
    assert "the weights have no layers.0.self_attn.k_proj.weight; copy the model again" in refusal(folder)


def test_a_head_that_differs_though_tied(written: Writer) -> None:
    said = refusal(written(config={"tie_word_embeddings": True}))
    assert "lm_head.weight and embed_tokens.weight differ, but the config ties them" in said


def test_no_tokenizer(written: Writer) -> None:
    folder = written()
    (folder / "tokenizer.json").unlink()
    assert "no such tokenizer file; give one with --tokenizer" in refusal(folder)


@pytest.mark.parametrize("entries", [19, 10])
def test_a_tokenizer_may_leave_rows_unused(written: Writer, write_tokenizer: Any, entries: int) -> None:
    folder = written()
    write_tokenizer(folder / "tokenizer.json", entries)
    assert load_model(folder).tree.vocabulary == 20
    write_tokenizer(folder / "tokenizer.json", 21)
    assert "the tokenizer has 21 entries, the model's vocabulary 20" in refusal(folder)


@pytest.mark.parametrize("context", [0, 17])
def test_contexts_beyond_what_the_model_was_trained_on(written: Writer, context: int) -> None:
    assert f"--context {context}: this model reads 1 to 16 tokens" in refusal(written(), context=context)


def test_families_without_a_cache_refuse_its_options(folder: Path) -> None:
    assert "--context: a model of family spikegpt carries a state of fixed size" in refusal(folder, context=16)
    assert "--kv-cache: a model of family spikegpt has no key-value cache" in refusal(folder, kv_cache="int8")


def test_a_tied_matrix_is_one_layer(written: Writer) -> None:
    tied = load_model(written(config={"tie_word_embeddings": True}, tensors={"lm_head.weight": None}))
    plain = load_model(written())
    assert [layer.path for layer in tied.tree.layers if layer.table] == ["lm_head"]
    assert tied.tree.layers[-1].table == "embed_tokens"
    assert (tied.tree.vocabulary, tied.tree.params) == (20, plain.tree.params - 20 * 8)
    assert tied.module.get_parameter("lm_head.weight") is tied.module.get_parameter("embed_tokens.weight")
    assert [layer.path for layer in plain.tree.layers][::14] == ["embed_tokens", "layers.1.mlp.down_proj"]


def test_opts_layers_and_what_lies_outside_them(written: Writer) -> None:
    tree = load_model(written("opt")).tree
    assert [block.path for block in tree.blocks] == ["emb", "layers.0", "layers.1", "head"]
    assert {layer.path: layer.kind for layer in tree.blocks[0].layers} == {
        "embed_tokens": "embedding",
        "embed_positions": "positions",
    }
    norms, biases = 2 * (4 * 8) + 2 * 8, 2 * (5 * 8 + 12)
    assert tree.vector_params == norms + biases
    assert [layer.path for layer in tree.blocks[-1].layers] == ["project_in", "project_out", "lm_head"]


def test_what_caches_take(written: Writer) -> None:
    exact, codes = (load_model(written(), options=ModelOptions(10, kind)) for kind in ("fp32", "int8"))
    values = 2 * 2 * (2 * 10 * 2)
    assert exact.tree.stored_state_bytes == 8 + 4 * values
    assert codes.tree.stored_state_bytes == 8 + values + 2 * 2 * (2 * 10) * 4
    assert exact.tree.state_values == codes.tree.state_values == 1 + values
    assert exact.tree.bytes_fp32 == codes.tree.bytes_fp32
    specs = exact.forward.state_specs()
    assert specs[0] == StateSpec("position", (1,), 0.0, "int64")
    assert specs[1] == StateSpec("layers.0.keys", (2, 10, 2), 0.0, "float32", in_place=True)
    assert codes.forward.state_specs() == specs, "the model itself is the reference and keeps its cache exactly"


def test_a_full_context_is_refused() -> None:
    model = Decoder(dataclasses.replace(TINY, context=5)).eval()
    with torch.inference_mode():
        _, state = model(torch.zeros(1, 5, dtype=torch.int64), model.initial_state())
        with pytest.raises(SlmcError, match="6 tokens do not fit into a context of 5"):
            model(torch.zeros(1, 1, dtype=torch.int64), state)


@pytest.mark.parametrize("made", [Decoder(TINY), Decoder(OPT)], ids=["llama", "opt"])
def test_texts_of_a_batch_do_not_mix_and_gradients_flow(made: Any) -> None:
    tokens = torch.randint(0, 20, (3, 9), generator=torch.Generator().manual_seed(1))
    together, _ = made(tokens, made.initial_state(3))
    for i in range(3):
        alone, _ = made(tokens[i : i + 1], made.initial_state(1))
        assert torch.allclose(alone[0], together[i], atol=1e-5)
    together.sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in made.parameters())


def test_a_head_that_is_not_there_is_the_embedding_if_the_config_does_not_say(written: Writer) -> None:
    assert load_model(written(tensors={"lm_head.weight": None})).tree.layers[-1].table == "embed_tokens"
    said = refusal(written(config={"tie_word_embeddings": False}, tensors={"lm_head.weight": None}))
    assert "1 tensors missing, 0 unknown (missing lm_head.weight)" in said


def test_two_names_of_one_tensor(written: Writer) -> None:
    said = refusal(written(tensors={"model.norm.weight": torch.ones(8)}))
    assert "model.norm.weight and norm.weight are the same tensor, norm.weight; remove one of them" in said
