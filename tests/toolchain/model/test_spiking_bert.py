"""BERT that spikes before its linear layers: against a plain implementation, its names, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from exporters.artifact.errors import SlmcError
from toolchain.model.catalog import LoadedModel, load_model
from toolchain.model.classifier import Classes
from toolchain.model.family import ModelOptions
from toolchain.model.spiking import Neurons, Spiking
from toolchain.model.spiking_bert import SpikingBertClassifier, SpikingBertConfig

TINY = SpikingBertConfig(
    2, 8, 12, 20, heads=2, positions=16, context=16, spiking=Spiking(3, 2, 0.5, True), epsilon=1e-5
)
CONFIG: dict[str, Any] = {
    "model_type": "spiking-bert", "num_attention_heads": 2, "layer_norm_eps": 1e-5, "spike_steps": 3,
    "spike_levels": 2, "spike_leak": 0.5, "spike_reset": "soft", "labels": ["bad", "good"],
}  # fmt: skip
Writer = Callable[..., Path]


def random_model(config: SpikingBertConfig = TINY, classes: Classes | None = None) -> SpikingBertClassifier:
    """Weights large enough that neurons fire, thresholds and amplitudes that differ from step to step."""
    torch.manual_seed(3)
    model = SpikingBertClassifier(config, classes or Classes(("bad", "good"), "mean", True))
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.9)
        elif isinstance(module, Neurons) and config.spiking.constants is None:
            nn.init.uniform_(module.threshold, 0.3, 0.8)
            nn.init.uniform_(module.amplitude, 0.5, 1.5)
    return model.eval().requires_grad_(False)


# --- a plain implementation ------------------------------------------------------------------------------------------


def spiked(x: np.ndarray, theta: np.ndarray, a: np.ndarray, spiking: Spiking) -> np.ndarray:
    v, out = np.zeros_like(x[0]), []
    for s in range(spiking.steps):
        u = np.float32(spiking.leak) * v + x[s]
        z = (u >= theta[s]).astype(np.float32)
        if spiking.levels == 3:
            z -= u <= -theta[s]
        out.append(a[s] * z)
        v = u - theta[s] * z if spiking.soft else np.where(z == 0, u, 0)
    return np.stack(out)


def scores_by_definition(model: SpikingBertClassifier, tokens: list[int]) -> np.ndarray:
    """One text [time] to its scores, tensor by tensor as BERT has them, in NumPy."""
    p = {name: t.numpy() for name, t in model.state_dict().items()}
    config = model.config

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + config.epsilon)
        return centred / deviation * p[f"{name}.weight"] + p[f"{name}.bias"]

    def spikes(x: np.ndarray, name: str) -> np.ndarray:
        return spiked(x, p[f"{name}.threshold"], p[f"{name}.amplitude"], config.spiking)

    x = p["embeddings.word_embeddings.weight"][tokens] + p["embeddings.position_embeddings.weight"][: len(tokens)]
    if config.types:
        x = x + p["embeddings.token_type_embeddings.weight"][0]
    x = np.stack([norm(x, "embeddings.LayerNorm")] * config.spiking.steps)
    for i in range(config.layers):
        at = f"encoder.layer.{i}"
        z = spikes(x, f"{at}.attention.self.spikes")
        q, k, v = (
            spikes(dense(z, f"{at}.attention.self.{n}"), f"{at}.attention.self.{n}_spikes")
            for n in ("query", "key", "value")
        )
        width, mixed = config.hidden_size // config.heads, np.zeros_like(q)
        for s in range(config.spiking.steps):
            for head in range(config.heads):
                part = slice(head * width, (head + 1) * width)
                products = np.exp(q[s][:, part] @ k[s][:, part].T / math.sqrt(width))
                mixed[s][:, part] = products / products.sum(-1, keepdims=True) @ v[s][:, part]
        x = norm(x + dense(spikes(mixed, f"{at}.attention.output.spikes"), f"{at}.attention.output.dense"),
                 f"{at}.attention.output.LayerNorm")  # fmt: skip
        y = dense(spikes(x, f"{at}.intermediate.spikes"), f"{at}.intermediate.dense")
        erf = np.vectorize(math.erf)
        y = np.maximum(y, 0) if config.activation == "relu" else y * (1 + erf(y / math.sqrt(2))) / 2
        x = norm(x + dense(spikes(y.astype(np.float32), f"{at}.output.spikes"), f"{at}.output.dense"),
                 f"{at}.output.LayerNorm")  # fmt: skip
    rates = x.mean(0)
    pooled = np.tanh(dense(rates[0], "pooler.dense")) if config.pooler else rates.mean(0)
    return dense(pooled, "classifier")


VARIANTS = {
    "binary, soft": TINY,
    "binary, hard": replace(TINY, spiking=Spiking(2, 2, 1.0, False), activation="relu"),
    "ternary, soft": replace(TINY, spiking=Spiking(4, 3, 0.25, True)),
    "ternary, hard, one step": replace(TINY, spiking=Spiking(1, 3, 0.0, False), types=2),
    "pooler": replace(TINY, pooler=True),
}


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("tokens", [[7], [3, 19, 0, 3, 11]], ids=["one token", "five tokens"])
def test_scores(config: SpikingBertConfig, tokens: list[int]) -> None:
    model = random_model(config, Classes(("bad", "good"), "first" if config.pooler else "mean", True))
    found, state = model(torch.tensor([tokens]), [])
    assert found.shape == (1, 1, 2) and state == []
    np.testing.assert_allclose(found[0, 0], scores_by_definition(model, tokens), atol=2e-5)


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_linear_layers_see_spikes(config: SpikingBertConfig) -> None:
    """Of every layer of the blocks: one spike tensor of the neurons before it, some firing, some not."""
    model = random_model(config)
    seen: dict[str, Tensor] = {}
    for path, module in model.encoder.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(lambda _m, x, path=path: seen.update({path: x[0]}))
    model(torch.randint(0, 20, (4, 9)), [])
    assert len(seen) == 6 * config.layers
    for path, x in seen.items():
        before = path.rpartition(".")[0]
        neurons = model.encoder.get_submodule(f"{before}.spikes")
        assert isinstance(neurons, Neurons)
        assert x.shape[:2] == (config.spiking.steps, 4 * 9)
        spikes = x / neurons.amplitude[:, None, None]
        assert set(spikes.unique().tolist()) <= ({-1, 0, 1} if config.spiking.levels == 3 else {0, 1})
        assert 0 < torch.count_nonzero(spikes) < spikes.numel()


def test_texts_side_by_side_are_texts_alone() -> None:
    model, tokens = random_model(), torch.randint(0, 20, (3, 6), generator=torch.Generator().manual_seed(1))
    together, _ = model(tokens, [])
    for i in range(3):
        torch.testing.assert_close(model(tokens[i : i + 1], [])[0], together[i : i + 1], atol=1e-5, rtol=0)


def test_later_tokens_change_what_earlier_ones_say() -> None:
    """So that a text must come in one call."""
    model = random_model()
    assert model.whole_texts and model.state_specs() == [] and model.context == 16
    texts = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 9, 10, 11, 12]])
    hidden, _ = model.hidden(texts, [])
    assert not torch.allclose(hidden[0, :4], hidden[1, :4], atol=1e-3)


def test_gradients_reach_every_parameter() -> None:
    model = random_model().train().requires_grad_(True)
    scores, _ = model(torch.randint(0, 20, (8, 9)), [])
    nn.functional.cross_entropy(scores[:, 0], torch.arange(8) % 2).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and torch.isfinite(p.grad).all() and p.grad.abs().max() > 0, name


# --- checkpoints -----------------------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path: Path, write_tokenizer: Callable[[Path, int], Path]) -> Writer:
    """Writes a random model as a directory, its config and tensors changed as asked; None leaves out."""

    def write(
        config: dict[str, Any] | None = None, tensors: dict[str, Tensor | None] | None = None,
        model: SpikingBertClassifier | None = None, rename: Callable[[str], str] = str,
    ) -> Path:  # fmt: skip
        found: dict[str, Any] = (model or random_model()).state_dict() | (tensors or {})
        save_file({rename(n): t.clone() for n, t in found.items() if t is not None}, tmp_path / "model.safetensors")
        values = CONFIG | (config or {})
        (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in values.items() if v is not None}))
        write_tokenizer(tmp_path / "tokenizer.json", 20)
        return tmp_path

    return write


def same_scores(loaded: LoadedModel, model: SpikingBertClassifier) -> bool:
    tokens = torch.tensor([[4, 9, 9, 1]])
    return torch.equal(loaded.forward(tokens, [])[0], model(tokens, [])[0])


def test_a_directory(written: Writer) -> None:
    loaded = load_model(written())
    assert same_scores(loaded, random_model())
    assert loaded.classes is not None and loaded.classes.labels == ("bad", "good")
    assert [block.path for block in loaded.tree.blocks] == ["emb", "encoder.layer.0", "encoder.layer.1", "head"]
    assert [len(block.layers) for block in loaded.tree.blocks] == [2, 6, 6, 1]
    assert loaded.tree.params == sum(p.numel() for p in random_model().parameters())
    assert loaded.tree.state_values == 0 and loaded.tree.vocabulary == 20


def test_names_of_other_writers(written: Writer) -> None:
    """A wrapped model, TensorFlow's names of norms, and tensors that a classifier does not need."""

    def rename(name: str) -> str:
        old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        return old if name.startswith("classifier") else f"module.bert.{old}"

    of_no_use = {"embeddings.position_ids": torch.ones(1, 16), "cls.predictions.bias": torch.ones(20)}
    folder = written({"model_type": "bert"}, of_no_use, rename=lambda n: n if n.startswith("cls") else rename(n))
    assert same_scores(load_model(folder), random_model())


def test_neurons_that_the_config_describes(written: Writer) -> None:
    """Without thresholds in the checkpoint, as SpikingBERT has them; they count as vectors all the same."""
    config = replace(TINY, spiking=replace(TINY.spiking, constants=(0.5, 0.75)))
    model = random_model(config)
    loaded = load_model(written({"spike_threshold": 0.5, "spike_amplitude": 0.75}, model=model))
    assert same_scores(loaded, model)
    neurons = [m for m in loaded.module.modules() if isinstance(m, Neurons)]
    assert all(m.threshold.tolist() == [0.5] * 3 and m.amplitude.tolist() == [0.75] * 3 for m in neurons)
    values = sum(p.numel() for p in model.parameters())
    assert len(neurons) == 14 and loaded.tree.params == values + 14 * 2 * 3


def test_a_pooler_reads_the_first_token(written: Writer) -> None:
    model = random_model(replace(TINY, pooler=True), Classes(("bad", "good"), "first", True))
    loaded = load_model(written(model=model))
    assert loaded.classes is not None and loaded.classes.pooling == "first" and same_scores(loaded, model)


REFUSED = [
    ({"spike_steps": None, "spike_leak": None}, "spike_steps, spike_leak missing; BERT without spikes is not"),
    ({"spike_steps": 0}, "spike_steps is 0; a number above 0 is needed"),
    ({"spike_steps": 2.5}, "spike_steps is 2.5; a whole number above 0 is needed"),
    ({"spike_levels": 4}, "spike_levels is 4, which is not supported; supported: 2, 3"),
    ({"spike_leak": 1.5}, "spike_leak is 1.5; allowed is a finite value from 0 to 1"),
    ({"spike_leak": "half"}, "spike_leak is 'half'"),
    ({"spike_reset": "zero"}, "spike_reset is 'zero', which is not supported; supported: 'hard', 'soft'"),
    ({"spike_threshold": 1.0}, "spike_threshold is given, but the weights have thresholds; leave it out"),
    ({"hidden_act": "silu"}, "hidden_act is 'silu', which is not supported; supported: 'gelu', 'relu'"),
    ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
    ({"is_decoder": True}, "is_decoder is True, which is not supported"),
    ({"num_attention_heads": 3}, "3 heads cannot divide a hidden size of 8"),
    ({"num_attention_heads": None}, "num_attention_heads is missing"),
    ({"max_position_embeddings": 512}, "max_position_embeddings is 512, but the weights have 16"),
    ({"intermediate_size": 8}, "intermediate_size is 8, but the weights have 12"),
    ({"labels": ["bad"]}, "1 labels, but classifier.weight has 2 rows"),
]  # fmt: skip


@pytest.mark.parametrize(("config", "said"), REFUSED, ids=lambda v: str(v)[:40])
def test_configs_that_are_not_supported(written: Writer, config: dict[str, Any], said: str) -> None:
    with pytest.raises(SlmcError) as caught:
        load_model(written(config))
    assert said in str(caught.value)


def test_contexts(written: Writer) -> None:
    folder = written()
    assert load_model(folder, options=ModelOptions(context=5)).forward.context == 5
    with pytest.raises(SlmcError, match="--context 17: this model reads 1 to 16 tokens at once"):
        load_model(folder, options=ModelOptions(context=17))


def test_an_encoder_without_classes(written: Writer) -> None:
    folder = written({"labels": None}, {"classifier.weight": None, "classifier.bias": None})
    with pytest.raises(SlmcError, match=r"has no classifier\.weight predicts nothing that slmc knows"):
        load_model(folder)


def test_thresholds_of_one_layer_are_missing(written: Writer) -> None:
    folder = written(tensors={"encoder.layer.1.output.spikes.threshold": None})
    with pytest.raises(SlmcError, match=r"missing encoder\.layer\.1\.output\.spikes\.threshold"):
        load_model(folder)


def test_no_thresholds_at_all(written: Writer) -> None:
    folder = written(tensors=dict.fromkeys(n for n in random_model().state_dict() if "spikes." in n))
    with pytest.raises(SlmcError, match="spike_threshold is missing; a number above 0 is needed"):
        load_model(folder)
