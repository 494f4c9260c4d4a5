"""GGUF files as llama.cpp's converter writes them, beside the models of transformers that they were made from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from decoder_cases import LLAMA3, VOCABULARY, config_of, saved
from decoders import random_tokens

from exporters.artifact.errors import SlmcError
from toolchain.model.catalog import load_model
from toolchain.model.gguf_model import ARCHITECTURES, is_gguf

gguf = pytest.importorskip("gguf")
pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")

EPSILON = {"attention.layer_norm_rms_epsilon": 1e-6}
SIZES = {"context_length": 128, "embedding_length": 32, "feed_forward_length": 48, "attention.head_count": 4,
         "block_count": 2}  # fmt: skip
GROUPS = {"attention.head_count_kv": 2, "rope.freq_base": 10000.0}
WORDS = ["<s>", "</s>", *(f"w{i}" for i in range(2, VOCABULARY))]


def in_neighbours(tensor: np.ndarray, heads: int) -> np.ndarray:
    """Rows of halves side by side, as llama.cpp's converter permutes queries and keys of Llama."""
    rows = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, -1)
    return rows.swapaxes(1, 2).reshape(tensor.shape)


def unchanged(name: str, tensor: np.ndarray) -> np.ndarray:
    return tensor


def as_llama(name: str, tensor: np.ndarray) -> np.ndarray:
    heads = {"q_proj": 4, "k_proj": 2}.get(name.split(".")[-2])
    return in_neighbours(tensor, heads) if heads else tensor


def as_gemma(name: str, tensor: np.ndarray) -> np.ndarray:
    return tensor + 1 if name.endswith("norm.weight") else tensor


def as_gpt2(name: str, tensor: np.ndarray) -> np.ndarray:
    return tensor.T if name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")) else tensor


def as_neox(name: str, tensor: np.ndarray) -> np.ndarray:
    if "query_key_value" not in name:
        return tensor
    return tensor.reshape(4, 3, 8, -1).swapaxes(0, 1).reshape(tensor.shape)


Change = Callable[[str, np.ndarray], np.ndarray]
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any], Change]] = {
    "llama": ("LLAMA", {}, SIZES | GROUPS | EPSILON | {"rope.dimension_count": 8}, as_llama),
    "llama with biases": ("LLAMA", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
                          SIZES | GROUPS | EPSILON, as_llama),
    "qwen3": ("QWEN3", {"head_dim": 12}, SIZES | GROUPS | EPSILON | {"attention.key_length": 12}, unchanged),
    "gemma2": ("GEMMA2", {"head_dim": 12, "sliding_window": 24, "query_pre_attn_scalar": 12,
                         "tie_word_embeddings": True},
               SIZES | GROUPS | EPSILON | {"attention.key_length": 12, "attention.sliding_window": 24,
                                           "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}, as_gemma),
    "phi3": ("PHI3", {"partial_rotary_factor": 0.5, "rms_norm_eps": 1e-6},
             SIZES | GROUPS | EPSILON | {"rope.dimension_count": 4}, unchanged),
    "gpt2": ("GPT2", {"n_inner": 48, "tie_word_embeddings": True},
             SIZES | {"attention.layer_norm_epsilon": 1e-5}, as_gpt2),
    "gptneox": ("GPTNEOX", {}, SIZES | {"attention.layer_norm_epsilon": 1e-5, "rope.dimension_count": 2,
                                        "use_parallel_residual": True}, as_neox),
    "llama 3": ("LLAMA", {"rope_scaling": LLAMA3}, SIZES | GROUPS | EPSILON, as_llama),
    "smollm3": ("SMOLLM3", {"tie_word_embeddings": False, "rope_theta": 9000.0},
                SIZES | GROUPS | EPSILON | {"rope.freq_base": 9000.0}, as_llama),
    "granite": ("GRANITE", {"attention_multiplier": 0.3, "embedding_multiplier": 3.0, "residual_multiplier": 0.4,
                            "logits_scaling": 0.5},
                SIZES | GROUPS | EPSILON | {"attention.scale": 0.3, "embedding_scale": 3.0, "residual_scale": 0.4,
                                            "logit_scale": 0.5}, as_llama),
    "olmo2": ("OLMO2", {"rms_norm_eps": 1e-6}, SIZES | GROUPS | EPSILON, unchanged),
    "gemma3": ("GEMMA3", {"head_dim": 12, "sliding_window": 24, "query_pre_attn_scalar": 12, "num_hidden_layers": 7,
                          "tie_word_embeddings": True, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
               SIZES | GROUPS | EPSILON | {"attention.key_length": 12, "attention.sliding_window": 24,
                                           "block_count": 7, "rope.freq_base": 1000000.0,
                                           "rope.scaling.type": "linear", "rope.scaling.factor": 4.0}, as_gemma),
    "phi2": ("PHI2", {}, SIZES | GROUPS | {"attention.layer_norm_epsilon": 1e-5, "rope.dimension_count": 4}, unchanged),
    "stablelm": ("STABLELM", {"use_qkv_bias": True},
                 SIZES | GROUPS | {"attention.layer_norm_epsilon": 1e-5, "rope.dimension_count": 2}, unchanged),
    "stablelm, parallel": ("STABLELM", {"use_parallel_residual": True},
                           SIZES | GROUPS | {"attention.layer_norm_epsilon": 1e-5, "rope.dimension_count": 2,
                                             "use_parallel_residual": True}, unchanged),
    "starcoder2": ("STARCODER2", {"tie_word_embeddings": True},
                   SIZES | GROUPS | {"attention.layer_norm_epsilon": 1e-5}, unchanged),
}  # fmt: skip


def add(writer: Any, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, list):
        writer.add_array(key, value)
    else:
        {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)](key, value)


def write(path: Path, architecture: str, said: dict[str, Any], tensors: dict[str, np.ndarray], kind: str) -> Path:
    """A file whose matrices are of one type."""
    name = gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH[architecture]]
    writer = gguf.GGUFWriter(path, name)
    for key, value in said.items():
        add(writer, key if key.startswith("tokenizer.") else f"{name}.{key}", value)
    for tensor_name, tensor in tensors.items():
        how = gguf.GGMLQuantizationType[kind if tensor.ndim == 2 and tensor.shape[1] % 32 == 0 else "F32"]
        writer.add_tensor(tensor_name, gguf.quantize(np.ascontiguousarray(tensor, np.float32), how), raw_dtype=how)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


TOKENIZER: dict[str, Any] = {
    "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm", "tokenizer.ggml.tokens": WORDS,
    "tokenizer.ggml.token_type": [3, 3, *[1] * (VOCABULARY - 2)], "tokenizer.ggml.merges": [],
    "tokenizer.ggml.bos_token_id": 0, "tokenizer.ggml.eos_token_id": 1, "tokenizer.ggml.add_bos_token": True,
    "tokenizer.chat_template": "{% for m in messages %}[{{ m['content'] }}]{% endfor %}",
}  # fmt: skip


def converted(case: str, folder: Path, kind: str = "F32") -> tuple[Any, Path]:
    """A random model of transformers, and its file."""
    architecture, more, said, change = CASES[case]
    arch = gguf.MODEL_ARCH[architecture]
    theirs = saved(config_of(ARCHITECTURES[gguf.MODEL_ARCH_NAMES[arch]].model_type, more), folder)
    names = gguf.get_tensor_name_map(arch, said["block_count"])
    tensors = {}
    if "rope_scaling" in more and architecture == "LLAMA":
        plain = 10000.0 ** (-np.arange(0, 8, 2) / 8)
        tensors["rope_freqs.weight"] = plain / theirs.model.rotary_emb.inv_freq.numpy()
    for name, tensor in theirs.state_dict().items():
        if name == "lm_head.weight" and more.get("tie_word_embeddings"):
            continue
        new = names.get_name(name.replace("lm_head", "embed_out") if architecture == "GPTNEOX" else name,
                             try_suffixes=(".weight", ".bias"))  # fmt: skip
        assert new is not None, name
        tensors[new] = change(name, tensor.numpy())
    return theirs, write(folder / "model.gguf", architecture, said | TOKENIZER, tensors, kind)


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_the_model_that_was_converted(tmp_path: Path, case: str) -> None:
    theirs, path = converted(case, tmp_path)
    ours, ids = load_model(path), random_tokens(60, VOCABULARY)
    with torch.inference_mode():
        expected, (found, _) = theirs(ids).logits, ours.forward(ids, ours.forward.initial_state())
    assert expected.std() > 0.3
    assert (expected - found).abs().max() < 1e-4
    assert ours.rules is not None and (ours.rules.begin, ours.rules.end) == ((0,), (1,))
    assert ours.rules.chat is not None and ours.rules.chat.user == ("[", "]")
    assert ours.origin is not None and ours.notes == (f"model.gguf: {ours.origin}",)
    assert ours.origin.startswith("dequantised from GGUF (") and ours.origin.endswith("what the file holds")
    assert ours.name == "model"


def test_weights_are_what_the_blocks_hold(tmp_path: Path) -> None:
    """Q8_0: 32 codes and a float16 scale."""
    theirs, path = converted("llama", tmp_path, "Q8_0")
    weight = theirs.state_dict()["model.layers.1.mlp.gate_proj.weight"].numpy().reshape(48, 1, 32)
    scales = np.float32(np.float16(np.abs(weight).max(2, keepdims=True) / 127))
    found = load_model(path).weight("layers.1.mlp.gate_proj").numpy().reshape(48, 1, 32)
    codes = found / scales
    assert np.abs(codes - np.round(codes)).max() < 1e-3 and np.abs(codes).max() <= 128
    assert np.abs(found - weight).max() <= scales.max() * 0.51


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf", "MAMBA", {"block_count": 1}, {"token_embd.weight": np.ones((4, 4))}, "F32")
    assert is_gguf(path)
    with pytest.raises(SlmcError, match=r"general\.architecture is 'mamba'; GGUF files are read of llama, qwen2"):
        load_model(path)
    (tmp_path / "cut.gguf").write_bytes(path.read_bytes()[:40])
    with pytest.raises(SlmcError, match=r"cut\.gguf: no GGUF file, or truncated"):
        load_model(tmp_path / "cut.gguf")
    _, path = converted("llama", tmp_path)
    raw = path.read_bytes().replace(b"smollm", b"sm0llm")
    path.write_bytes(raw)
    with pytest.raises(SlmcError, match=r"tokenizer is of kind 'gpt2', 'sm0llm', which is not read; .* --tokenizer"):
        load_model(path)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"attention.head_count": [4, 4]}, r"\[4, 4\] heads in 2 groups; one number for all layers is needed"),
        ({"attention.head_count": 3}, "metadata that do not fit together|3 heads"),
        ({"rope.dimension_count": 4}, "4 of 8 channels of a head are turned, and llama turns all"),
        ({"embedding_length": "wide"}, "metadata that do not fit together"),
        ({"rope.scaling.type": "su"}, "rope_type is 'su', which is not supported"),
    ],
)
def test_metadata_that_do_not_fit(tmp_path: Path, said: dict[str, Any], words: str) -> None:
    tensors = {
        "token_embd.weight": np.ones((VOCABULARY, 32)), "blk.0.ffn_down.weight": np.ones((32, 48)),
        "blk.0.attn_q.weight": np.ones((32, 32)), "blk.0.attn_k.weight": np.ones((16, 32)),
    }  # fmt: skip
    path = write(tmp_path / "a.gguf", "LLAMA", SIZES | GROUPS | EPSILON | TOKENIZER | said, tensors, "F32")
    with pytest.raises(SlmcError, match=f"a.gguf: .*({words})"):
        load_model(path)
