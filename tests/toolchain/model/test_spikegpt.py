"""SpikeGPT's forward against its formulas, written out once more in numpy, one token and one channel sum at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from exporters.artifact.errors import SlmcError
from exporters.ops import fusions, recurrences
from toolchain.model.spikegpt import STATES_PER_BLOCK, SpikeGpt, SpikeGptConfig, SpikeGptFamily

Float64 = NDArray[np.float64]
TOLERANCE = 1e-9
TIME = 23


def layer_norm(x: Float64, weight: Float64, bias: Float64) -> Float64:
    """x [width] with mean 0 and variance 1 (the biased one, eps 1e-5), then scaled and moved."""
    result: Float64 = (x - x.mean()) / np.sqrt(((x - x.mean()) ** 2).mean() + 1e-5) * weight + bias
    return result


def sigmoid(x: Float64) -> Float64:
    return 1 / (1 + np.exp(-x))


def wkv_direct(w: Float64, u: Float64, keys: list[Float64], values: list[Float64]) -> Float64:
    """The WKV average of the last token in its direct sum form, no recurrence and no running maximum."""
    t = len(keys) - 1
    above, below = np.exp(u + keys[t]) * values[t], np.exp(u + keys[t])
    for s in range(t):
        weight = np.exp((t - 1 - s) * w + keys[s])
        above, below = above + weight * values[s], below + weight
    return above / below


class Lif:
    """Leaky integrate-and-fire neurons with decaying input and a hard reset to 0, threshold 1."""

    def __init__(self, width: int, tau: float) -> None:
        self.v, self.tau = np.zeros(width), tau

    def __call__(self, current: Float64) -> Float64:
        self.v = self.v + (current - self.v) / self.tau
        spikes = (self.v >= 1.0).astype(np.float64)
        self.v = np.where(spikes == 1, 0.0, self.v)
        return spikes


class NumpyBlock:
    """One block that reads tokens one by one and keeps everything it has seen."""

    def __init__(self, p: dict[str, Float64], index: int, width: int, rescale_every: int, tau: float) -> None:
        mine = f"blocks.{index}."
        self.p = {name.removeprefix(mine): x for name, x in p.items() if name.startswith(mine)}
        self.lif_att, self.lif_ffn = Lif(width, tau), Lif(width, tau)
        self.last_att, self.last_ffn = np.zeros(width), np.zeros(width)
        self.keys: list[Float64] = []
        self.values: list[Float64] = []
        self.divisor = 2 ** (index // rescale_every) if rescale_every else 1
        self.halves = rescale_every > 0 and (index + 1) % rescale_every == 0

    def mixed(self, now: Float64, last: Float64, name: str) -> Float64:
        share = self.p[name].reshape(-1)
        return now * share + last * (1 - share)

    def __call__(self, x: Float64) -> Float64:
        p = self.p
        if "ln0.weight" in p:
            x = layer_norm(x, p["ln0.weight"], p["ln0.bias"])
        z = layer_norm(x, p["ln1.weight"], p["ln1.bias"])
        self.keys.append(p["att.key.weight"] @ self.mixed(z, self.last_att, "att.time_mix_k"))
        self.values.append(p["att.value.weight"] @ self.mixed(z, self.last_att, "att.time_mix_v"))
        r = sigmoid(p["att.receptance.weight"] @ self.mixed(z, self.last_att, "att.time_mix_r"))
        self.last_att = z
        y = wkv_direct(-np.exp(p["att.time_decay"]), p["att.time_first"], self.keys, self.values)
        x = x + self.lif_att((p["att.output.weight"] / self.divisor) @ (r * y))
        z = layer_norm(x, p["ln2.weight"], p["ln2.bias"])
        a = np.maximum(p["ffn.key.weight"] @ self.mixed(z, self.last_ffn, "ffn.time_mix_k"), 0) ** 2
        r = sigmoid(p["ffn.receptance.weight"] @ self.mixed(z, self.last_ffn, "ffn.time_mix_r"))
        self.last_ffn = z
        x = x + self.lif_ffn(r * ((p["ffn.value.weight"] / self.divisor) @ a))
        return x / 2 if self.halves else x


def numpy_logits(model: SpikeGpt, tokens: list[int]) -> Float64:
    """Logits [time, vocabulary] of one text."""
    config = model.config
    p = {name: tensor.numpy().astype(np.float64) for name, tensor in model.state_dict().items()}
    blocks = [NumpyBlock(p, i, config.hidden_size, config.rescale_every, config.tau) for i in range(config.layers)]
    logits = []
    for token in tokens:
        x = p["emb.weight"][token]
        if config.embed_binarize:
            x = (x >= 0).astype(np.float64)
        for block in blocks:
            x = block(x)
        logits.append(p["head.weight"] @ layer_norm(x, p["ln_out.weight"], p["ln_out.bias"]))
    return np.stack(logits)


def lively(config: SpikeGptConfig, seed: int = 3) -> SpikeGpt:
    """A random float64 model whose neurons fire often and forget at many speeds."""
    generator = torch.Generator().manual_seed(seed)
    model = SpikeGpt(config).double().eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        if "time_mix" in name:
            parameter.copy_(torch.rand(parameter.shape, generator=generator, dtype=torch.float64))
        elif name.endswith(("output.weight", "value.weight")):
            parameter.copy_(1.5 * noise)
        elif "ln" in name and name.endswith("weight"):
            parameter.copy_(1 + 0.3 * noise)
        else:
            parameter.copy_(0.6 * noise)
    return model


CASES = [(b, r) for b in (True, False) for r in (0, 2)]


def tokens_of(config: SpikeGptConfig, batch: int = 2) -> torch.Tensor:
    return torch.randint(0, config.vocabulary, (batch, TIME), generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(("binarize", "rescale"), CASES)
def test_logits_are_those_of_the_formulas(binarize: bool, rescale: int) -> None:
    config = SpikeGptConfig(5, 8, 20, 13, embed_binarize=binarize, rescale_every=rescale)
    model, tokens = lively(config), tokens_of(config)
    logits, _ = model(tokens, model.initial_state(2))
    for row in range(2):
        expected = numpy_logits(model, tokens[row].tolist())
        assert np.abs(logits[row].numpy() - expected).max() < TOLERANCE
        assert expected.std() > 0.1  # not a model that says the same whatever it reads


def test_the_cases_differ_so_that_each_option_is_really_tested() -> None:
    tokens = tokens_of(SpikeGptConfig(5, 8, 20, 13))
    logits = []
    for binarize, rescale in CASES:
        model = lively(SpikeGptConfig(5, 8, 20, 13, embed_binarize=binarize, rescale_every=rescale))
        logits.append(model(tokens, model.initial_state(2))[0])
    for i in range(4):
        for j in range(i):
            assert (logits[i] - logits[j]).abs().max() > 1e-3


def test_the_membrane_time_constant_is_heeded() -> None:
    config = SpikeGptConfig(2, 8, 20, 13, tau=3.5)
    model, tokens = lively(config), tokens_of(config, batch=1)
    logits, _ = model(tokens, model.initial_state(1))
    assert np.abs(logits[0].numpy() - numpy_logits(model, tokens[0].tolist())).max() < TOLERANCE


def test_neurons_fire_sometimes_and_not_always(monkeypatch: pytest.MonkeyPatch) -> None:
    model = lively(SpikeGptConfig(5, 8, 20, 13))
    rates: list[float] = []
    original = recurrences.lif

    def counted(current: torch.Tensor, *state: object) -> tuple[torch.Tensor, torch.Tensor]:
        fired, after = original(current, *state)
        rates.append(float(fired.mean()))
        return fired, after

    monkeypatch.setattr(fusions, "lif", counted)
    model(tokens_of(model.config), model.initial_state(2))
    assert len(rates) == 10
    assert 0.02 < sum(rates) / len(rates) < 0.9


@pytest.mark.parametrize(("binarize", "rescale"), CASES)
@pytest.mark.parametrize("pieces", [(1,) * TIME, (7, 1, 9, 6), (22, 1)])
def test_whole_text_chunks_and_single_tokens_agree(binarize: bool, rescale: int, pieces: tuple[int, ...]) -> None:
    model = lively(SpikeGptConfig(5, 8, 20, 13, embed_binarize=binarize, rescale_every=rescale))
    tokens = tokens_of(model.config)
    whole, state_after_whole = model(tokens, model.initial_state(2))
    state, parts = model.initial_state(2), []
    for piece in torch.split(tokens, list(pieces), 1):
        logits, state = model(piece, state)
        parts.append(logits)
    assert (torch.cat(parts, 1) - whole).abs().max() < TOLERANCE
    for spec, one, other in zip(model.state_specs(), state, state_after_whole, strict=True):
        assert (one - other).abs().max() < TOLERANCE, spec.name


def test_texts_of_a_batch_do_not_mix() -> None:
    model = lively(SpikeGptConfig(2, 8, 20, 13))
    tokens = tokens_of(model.config)
    together, _ = model(tokens, model.initial_state(2))
    for row in range(2):
        alone, _ = model(tokens[row : row + 1], model.initial_state(1))
        assert (together[row] - alone[0]).abs().max() < TOLERANCE


def test_logits_do_not_depend_on_later_tokens() -> None:
    model = lively(SpikeGptConfig(2, 8, 20, 13))
    tokens = tokens_of(model.config)
    changed = tokens.clone()
    changed[:, 11:] = (changed[:, 11:] + 1) % model.config.vocabulary
    one, other = (model(t, model.initial_state(2))[0] for t in (tokens, changed))
    assert torch.equal(one[:, :11], other[:, :11])
    assert not torch.equal(one[:, 11], other[:, 11])


def test_states_start_empty_and_are_named_in_order() -> None:
    model = SpikeGpt(SpikeGptConfig(2, 4, 12, 9))
    specs = model.state_specs()
    assert [s.name for s in specs[7:]] == [f"blocks.1.{name}" for name in STATES_PER_BLOCK]
    assert {(s.shape, s.fill) for s in specs if not s.name.endswith("exponent")} == {((4,), 0.0)}
    assert {s.fill for s in specs if s.name.endswith("exponent")} == {-1e38}
    assert [tuple(s.shape) for s in model.initial_state(3)] == [(3, 4)] * 14


def test_a_long_text_does_not_overflow_where_the_direct_sum_would() -> None:
    """Keys near 800 overflow exp in float64; the running maximum must not."""
    model = lively(SpikeGptConfig(1, 8, 20, 13))
    model.get_parameter("blocks.0.att.key.weight").mul_(400.0)
    logits, _ = model(tokens_of(model.config), model.initial_state(2))
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"layers": 3}, ("layers is 3", "weights have 2")),
        ({"width": 5}, ("width is 5", "weights have 4")),
        ({"hidden": 16}, ("hidden is 16", "weights have 12")),
        ({"vocabulary": "nine"}, ("vocabulary is 'nine'", "weights have 9")),
        ({"embed_binarize": 1}, ("embed_binarize is 1", "true or false is needed")),
        ({"embed_binarize": "yes"}, ("embed_binarize is 'yes'", "true or false")),
        ({"rescale_every": 2.5}, ("rescale_every is 2.5", "allowed is a int")),
        ({"rescale_every": True}, ("rescale_every is True", "int")),
        ({"rescale_every": -1}, ("rescale_every is -1", "from 0")),
        ({"tau": 0}, ("tau is 0", "from 1")),
        ({"tau": "two"}, ("tau is 'two'", "float")),
        ({"tau": float("nan")}, ("tau is nan", "finite")),
        ({"threshold": float("inf")}, ("threshold is inf", "finite")),
        ({"dropout": 1.5}, ("dropout is 1.5", "to 1")),
    ],
)
def test_a_config_that_contradicts_is_refused(tensors: Any, config: dict[str, Any], words: tuple[str, ...]) -> None:
    shapes = {name: tuple(t.shape) for name, t in tensors.items()}
    with pytest.raises(SlmcError) as caught:
        SpikeGptFamily().config(shapes, config)
    for word in ("config.json", *words):
        assert word in str(caught.value)


def test_options_come_from_the_config_and_whole_numbers_serve_as_floats(tensors: Any) -> None:
    shapes = {name: tuple(t.shape) for name, t in tensors.items()}
    config = SpikeGptFamily().config(
        shapes, {"tau": 3, "rescale_every": 6, "embed_binarize": False, "threshold": None, "other": [1]}
    )
    assert config == SpikeGptConfig(2, 4, 12, 9, embed_binarize=False, rescale_every=6, tau=3.0)
