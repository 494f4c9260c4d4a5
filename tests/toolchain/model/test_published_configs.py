"""The option tables beside Hugging Face's own classes: every field known, defaults equal, published configs alike.

Sizes are those of tiny random models; every other option stands as it does in the config.json that was published.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from decoder_cases import LLAMA3, VOCABULARY, config_of
from decoder_cases import saved as saved_config
from decoders import random_tokens
from torch import Tensor

from exporters.artifact.errors import SlmcError
from toolchain.model.catalog import LoadedModel, load_model
from toolchain.model.decoder_types import TYPES
from toolchain.model.options import ABSENT, REQUIRED, OptionTable, SameAs
from toolchain.model.rwkv4 import TABLE as RWKV
from toolchain.model.spiking_bert import TABLE as BERT

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers")

TOKENS = 100
EXACT = 1e-4
YARN = {"type": "yarn", "factor": 16.0, "original_max_position_embeddings": 64, "finetuned": True}
LEFT_OUT = ...

PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "SmolLM2-135M": ("llama", {
        "rms_norm_eps": 1e-5, "rope_theta": 100000, "rope_scaling": None, "rope_interleaved": False,
        "is_llama_config": True, "tie_word_embeddings": True, "pretraining_tp": 1,
        "transformers.js_config": {"dtype": "fp32"},
    }),
    "TinyLlama-1.1B": ("llama", {"rms_norm_eps": 1e-5, "pretraining_tp": 1, "tie_word_embeddings": False}),
    "Llama-2-13b": ("llama", {
        "num_key_value_heads": 4, "pretraining_tp": 2, "rope_scaling": None, "rms_norm_eps": 1e-5, "pad_token_id": 0,
    }),
    "LLaMA-7b": ("llama", {"num_key_value_heads": None, "max_sequence_length": 2048, "hidden_act": "silu"}),
    "Llama-3.2-1B": ("llama", {
        "head_dim": 16, "rope_scaling": LLAMA3, "rope_theta": 500000.0, "attention_bias": False,
        "attention_dropout": 0.0, "mlp_bias": False, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
        "eos_token_id": [1, 2, 3],
    }),
    "CodeLlama-7b": ("llama", {"rope_theta": 1000000, "num_key_value_heads": 4, "rope_scaling": None}),
    "Yi-6B": ("llama", {"rope_theta": 5000000.0, "num_key_value_heads": 1, "rope_scaling": None}),
    "deepseek-coder-1.3b": ("llama", {
        "num_key_value_heads": 4, "rope_scaling": {"factor": 4.0, "type": "linear"}, "rope_theta": 100000,
    }),
    "vicuna-7b-16k": ("llama", {"rope_scaling": {"type": "dynamic", "factor": 8.0}, "num_key_value_heads": None}),
    "Yarn-Llama-2-7b": ("llama", {"rope_scaling": YARN, "num_key_value_heads": 4}),
    "InternLM-like": ("llama", {"attention_bias": True, "rope_scaling": {"rope_type": "default"}}),
    "as transformers 5 writes": ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}),
    "theta beside": ("llama", {"rope_parameters": {"rope_type": "default"}, "rope_theta": 500000.0}),
    "the older key": ("llama", {"rope_parameters": {"type": "linear", "factor": 4.0, "rope_theta": 10000.0}}),
    "both groups": ("llama", {
        "rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_theta": 500000.0},
    }),
    "nothing said": ("llama", {"max_position_embeddings": LEFT_OUT}),
    "yarn in full": ("llama", {"rope_parameters": YARN | {
        "beta_fast": 16, "beta_slow": 2, "mscale": 0.7, "mscale_all_dim": 1.1, "truncate": False, "finetuned": LEFT_OUT,
    }}),
    "yarn with its factor": ("llama", {"rope_parameters": {
        "rope_type": "yarn", "factor": 4.0, "attention_factor": 1.5, "original_max_position_embeddings": 32,
    }}),
    "Mistral-7B-v0.3": ("mistral", {"sliding_window": None, "rope_theta": 1000000.0, "rms_norm_eps": 1e-5}),
    "Mistral-Nemo": ("mistral", {"sliding_window": None, "head_dim": 12, "rope_theta": 1000000.0}),
    "Mistral-7B-v0.1": ("mistral", {"sliding_window": 40, "rope_theta": 10000.0}),
    "Qwen2.5-0.5B": ("qwen2", {
        "max_window_layers": 1, "sliding_window": 64, "use_sliding_window": False, "rope_theta": 1000000.0,
        "tie_word_embeddings": True, "use_mrope": False,
    }),
    "Qwen2 with windows": ("qwen2", {"max_window_layers": 1, "sliding_window": 40, "use_sliding_window": True}),
    "opt-125m": ("opt", {"_remove_final_layer_norm": False, "prefix": "</s>", "activation_dropout": 0.0}),
    "opt-350m": ("opt", {"do_layer_norm_before": False, "word_embed_proj_dim": 16, "_remove_final_layer_norm": False}),
    "opt without a width": ("opt", {"word_embed_proj_dim": None}),
    "galactica-like": ("opt", {"enable_bias": False, "_remove_final_layer_norm": True}),
}  # fmt: skip


def saved(kind: str, said: dict[str, Any], folder: Path) -> Any:
    """A random model whose config.json says this; as transformers reads it again."""
    config = config_of(kind, said)
    config = {k: {i: x for i, x in v.items() if x is not LEFT_OUT} if isinstance(v, dict) else v
              for k, v in config.items()}  # fmt: skip
    return saved_config(config, folder)


def logits(theirs: Any, ours: LoadedModel) -> tuple[Tensor, Tensor]:
    ids = random_tokens(TOKENS, VOCABULARY)
    with torch.inference_mode():
        return theirs(ids).logits, ours.forward(ids, ours.forward.initial_state())[0]


@pytest.fixture
def model_folder(tmp_path: Path, write_tokenizer: Callable[[Path, int], Path]) -> Path:
    write_tokenizer(tmp_path / "tokenizer.json", VOCABULARY)
    return tmp_path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs_give_the_logits_of_transformers(model_folder: Path, name: str) -> None:
    theirs, ours = logits(saved(*PUBLISHED[name], model_folder), load_model(model_folder))
    assert theirs.std() > 0.3, "logits that say nothing prove nothing"
    assert (theirs - ours).abs().max() < EXACT


@pytest.mark.filterwarnings("ignore")
def test_scaled_rotary_positions_are_not_plain_ones(model_folder: Path) -> None:
    for name in ("Llama-3.2-1B", "deepseek-coder-1.3b", "Yarn-Llama-2-7b", "the older key"):
        kind, said = PUBLISHED[name]
        theirs = saved(kind, said, model_folder)
        plain = json.loads((model_folder / "config.json").read_text())
        plain |= {"rope_scaling": None, "rope_parameters": {"rope_theta": said.get("rope_theta", 10000.0)}}
        (model_folder / "config.json").write_text(json.dumps(plain))
        expected, other = logits(theirs, load_model(model_folder))
        assert (expected - other).abs().max() > 100 * EXACT


FIELDS: list[tuple[str, OptionTable]] = [
    *((name, row.options) for name, row in TYPES.items()), ("rwkv", RWKV), ("bert", BERT),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "table"), FIELDS, ids=[name for name, _ in FIELDS])
def test_every_field_of_the_class_is_known(kind: str, table: OptionTable) -> None:
    fields = transformers.AutoConfig.for_model(kind).to_dict()
    assert table.unread(fields) == ()
    assert table.unread(fields | {"a_new_option": 1}) == ("a_new_option",)


@pytest.mark.parametrize(("kind", "table"), FIELDS, ids=[name for name, _ in FIELDS])
def test_defaults_are_those_of_the_class(kind: str, table: OptionTable) -> None:
    """Of every option that stands at one place; a default of None is taken from the weights, or is the other's too."""
    said = transformers.AutoConfig.for_model(kind).to_dict()
    if kind in ("qwen2", "qwen3"):  # the class takes the window away where it is not used
        said["sliding_window"] = transformers.AutoConfig.for_model(kind, use_sliding_window=True).sliding_window
    compared = 0
    for option in table.read.values():
        key = option.places[0] if option.places else ""
        if key in said and option.default not in (REQUIRED, None, ()) and not isinstance(option.default, SameAs):
            null = option.default if option.null is ABSENT else option.null
            stated = null if said[key] is None else option.check(key, said[key])
            assert option.default == stated, key
            compared += 1
    assert compared > 1


def test_options_of_no_list_are_named_and_those_that_matter_refused(model_folder: Path) -> None:
    saved("llama", {"_unknown_thing": 1, "name_of_nothing": "x"}, model_folder)
    model = load_model(model_folder)
    assert model.notes == ("config.json: _unknown_thing, name_of_nothing not read: no option of this model type",)
    config = json.loads((model_folder / "config.json").read_text())
    for key, value in (("residual_multiplier", 0.22), ("logit_scale", 16), ("quantization_config", {"bits": 4})):
        (model_folder / "config.json").write_text(json.dumps(config | {key: value}))
        with pytest.raises(SlmcError, match=f"{key} is .*, which is not supported; supported: none"):
            load_model(model_folder)


def test_no_config_says_what_is_missing_and_what_to_do(model_folder: Path) -> None:
    saved("llama", {}, model_folder)
    (model_folder / "config.json").unlink()
    with pytest.raises(SlmcError, match=r"there is no config\.json with num_attention_heads beside the weights.*copy"):
        load_model(model_folder)
