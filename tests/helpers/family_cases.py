"""Small random models of every family: a module, its config, and options of a build."""

from __future__ import annotations

from typing import Any

from decoders import family, llama_config, opt_config
from torch import nn

from toolchain.model.decoder import Decoder
from toolchain.model.family import ModelOptions
from toolchain.model.matmulfree import MatMulFree, MatMulFreeConfig
from toolchain.model.neuronspark import NeuronSpark, NeuronSparkConfig
from toolchain.model.rwkv4 import Rwkv4
from toolchain.model.rwkv7 import Rwkv7, Rwkv7Config
from toolchain.model.spike_counts import GroupedLinear
from toolchain.model.spikegpt import SpikeGptConfig
from toolchain.model.spikingbrain import SpikingBrain, SpikingBrainConfig
from toolchain.model.symboliclight import SymbolicLight, SymbolicLightConfig

VOCABULARY, CONTEXT = 300, 48


def llama() -> tuple[nn.Module, dict[str, Any]]:
    """Grouped heads, a tied embedding."""
    config = llama_config(1, 32, 48, VOCABULARY, heads=4, groups=2, head_size=8, context=64, tied=True)
    model = Decoder(config)
    model.lm_head.weight = model.embed_tokens.weight
    return model, {
        "model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
        "tie_word_embeddings": True,
    }  # fmt: skip


def scaled() -> tuple[nn.Module, dict[str, Any]]:
    """Scaled rotary positions, as Llama 3.2 has them."""
    scaling = {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    }  # fmt: skip
    config = {
        "model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
        "tie_word_embeddings": False, "rope_scaling": scaling,
    }  # fmt: skip
    plain = Decoder(llama_config(1, 32, 48, VOCABULARY, heads=4, groups=2, head_size=8, context=64))
    shapes = {name: tuple(t.shape) for name, t in plain.state_dict().items()}
    sizes = family("llama").config(shapes, config, ModelOptions())
    assert sizes.layers[0].rotary is not None and not sizes.layers[0].rotary.plain
    return Decoder(sizes), config


def opt() -> tuple[nn.Module, dict[str, Any]]:
    """Biases, learned positions, a narrow embedding."""
    config = opt_config(1, 32, 48, VOCABULARY, embedding=16, heads=4, positions=64)
    return Decoder(config), {"model_type": "opt", "num_attention_heads": 4, "tie_word_embeddings": False}


def rwkv() -> tuple[nn.Module, dict[str, Any]]:
    return Rwkv4(SpikeGptConfig(1, 32, 64, VOCABULARY)), {"model_type": "rwkv"}


def symboliclight() -> tuple[nn.Module, dict[str, Any]]:
    """A window of 20 tokens and two anchors, in texts that are longer."""
    config = SymbolicLightConfig(
        layers=1,
        hidden_size=32,
        intermediate_size=64,
        vocabulary=VOCABULARY,
        heads=2,
        bottleneck=8,
        window=20,
        anchors=2,
    )
    return SymbolicLight(config), {"model_type": "symboliclight", "sparse_attn_window": 20, "n_global_anchors": 2}


def matmulfree() -> tuple[nn.Module, dict[str, Any]]:
    config = MatMulFreeConfig(layers=2, hidden_size=32, intermediate_size=48, vocabulary=VOCABULARY)
    return MatMulFree(config), {"model_type": "hgrn_bit"}


def neuronspark() -> tuple[nn.Module, dict[str, Any]]:
    """Three frames of a token; one table for tokens and logits."""
    config = NeuronSparkConfig(
        layers=1, hidden_size=32, expansion=2, intermediate_size=48, vocabulary=VOCABULARY, frames=3
    )
    model = NeuronSpark(config)
    model.lm_head.weight = model.embed_tokens.weight
    return model, {"model_type": "neuronspark", "K": 3, "tie_word_embeddings": True}


def rwkv7() -> tuple[nn.Module, dict[str, Any]]:
    """Two blocks: the second mixes its values with the first one's."""
    ranks = {"w": 4, "a": 4, "v": 4, "g": 8}
    config = Rwkv7Config(layers=2, hidden_size=32, intermediate_size=64, vocabulary=VOCABULARY, heads=2, ranks=ranks)
    return Rwkv7(config), {"model_type": "rwkv7"}


def spikingbrain(*, spiking: bool = False) -> tuple[nn.Module, dict[str, Any]]:
    """A window of 20 tokens in contexts that are longer; spiking: spikes and rounded weights, as W8ASpike has them."""
    config = SpikingBrainConfig(
        layers=2, hidden_size=32, intermediate_size=48, vocabulary=VOCABULARY, heads=4, groups=2, attention=(1,),
        context=64, gate_rank=None if spiking else 8, window=20, weight_group=16 if spiking else None,
    )  # fmt: skip
    model = SpikingBrain(config)
    for module in model.modules():
        if isinstance(module, GroupedLinear):
            module.scales.fill_(0.01)
    return model, {"model_type": "gla_swa", "sliding_window": 20, "max_position_embeddings": 64}


CASES = {
    "llama": (llama, ("--context", CONTEXT, "--kv-cache", "int8", "--layer", "lm_head=int4-g32")),
    "scaled": (scaled, ("--context", CONTEXT)),
    "opt": (opt, ("--context", CONTEXT)),
    "rwkv": (rwkv, ()),
    "symboliclight": (symboliclight, ("--kv-cache", "int8")),
    "matmulfree": (matmulfree, ()),
    "neuronspark": (neuronspark, ()),
    "rwkv7": (rwkv7, ()),
    "spikingbrain": (spikingbrain, ("--context", CONTEXT)),
}
