"""The Fisher diagonal of a model whose gradients are known in closed form: p - onehot at the head."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from toolchain.calibration import fisher
from toolchain.calibration.fisher import STREAMS, WINDOW, output_fisher
from toolchain.model.catalog import LoadedModel


def predictions(bigram: LoadedModel, ids: Tensor) -> Tensor:
    """p [tokens, vocabulary] of the bigram, float64."""
    return torch.softmax(bigram.weight("emb").double()[ids] @ bigram.weight("head").double().T, -1)


def test_with_known_draws_the_gradient_is_p_minus_onehot(
    bigram: LoadedModel, token_ids: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let every drawn token be the least likely one; 300 tokens are two streams of 150, in pieces of 128 and 22."""
    monkeypatch.setattr(torch, "multinomial", lambda p, n, generator: p.argmin(-1, keepdim=True))
    ids = token_ids(300, 5)
    result = output_fisher(bigram, ids, seed=0)
    p = predictions(bigram, ids)
    gradient = p - torch.nn.functional.one_hot(p.argmin(-1), 5)
    assert torch.allclose(result["head"].double(), gradient.square().mean(0), rtol=1e-4)
    below = gradient @ bigram.weight("head").double()
    assert torch.allclose(result["emb"].double(), below.square().mean(0), rtol=1e-4)


def test_drawn_tokens_follow_the_prediction(bigram: LoadedModel, token_ids: Any) -> None:
    """The expectation is p (1 - p) per output, and diag(W^T (diag p - p p^T) W) per channel of the embedding."""
    ids = token_ids(20_000, 5)
    result = output_fisher(bigram, ids, seed=1)
    p = predictions(bigram, ids)
    assert torch.allclose(result["head"].double(), (p * (1 - p)).mean(0), rtol=0.05)
    w = bigram.weight("head").double()
    expected = (p @ w.square() - (p @ w).square()).mean(0)
    assert torch.allclose(result["emb"].double(), expected, rtol=0.05)


def test_tokens_that_fill_no_stream_are_left_out(
    bigram: LoadedModel, token_ids: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "multinomial", lambda p, n, generator: p.argmin(-1, keepdim=True))
    ids = token_ids(STREAMS * WINDOW + 5, 5)
    p = predictions(bigram, ids[: STREAMS * WINDOW])
    gradient = p - torch.nn.functional.one_hot(p.argmin(-1), 5)
    assert torch.allclose(output_fisher(bigram, ids, 0)["head"].double(), gradient.square().mean(0), rtol=1e-4)


def test_the_seed_decides(spiking: LoadedModel, token_ids: Any) -> None:
    ids = token_ids(400, 13)
    one, same, other = (output_fisher(spiking, ids, seed) for seed in (7, 7, 8))
    assert all(torch.equal(one[path], same[path]) for path in one)
    assert not torch.equal(one["head"], other["head"])


def test_every_layer_of_a_spiking_model_matters(spiking: LoadedModel, token_ids: Any) -> None:
    result = output_fisher(spiking, token_ids(400, 13), seed=0)
    assert result.keys() == {layer.path for layer in spiking.tree.layers}
    for layer in spiking.tree.layers:
        assert result[layer.path].shape == (layer.cols if layer.kind == "embedding" else layer.rows,)
        assert torch.isfinite(result[layer.path]).all()
        assert float(result[layer.path].sum()) > 0, layer.path


def test_gradients_end_at_a_window_and_the_state_goes_on(
    spiking: LoadedModel, token_ids: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 tokens are one stream in windows of 128 and 72, against autograd on each, the second from the first's state.

    The gradient is that of the summed loss of a window at each output.
    """
    ids = token_ids(200, 13)
    monkeypatch.setattr(torch, "multinomial", lambda p, n, generator: p.argmin(-1, keepdim=True))
    result = output_fisher(spiking, ids, seed=0)
    path, outputs = "blocks.0.att.key", []

    def keep(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
        outputs.append(output.requires_grad_())
        return output

    handle = spiking.module.get_submodule(path).register_forward_hook(keep)
    state, squares = spiking.forward.initial_state(), torch.zeros(8)
    for piece in (ids[:128], ids[128:]):
        logits, after = spiking.forward(piece[None], state)
        loss = -torch.log_softmax(logits[0], -1).gather(1, logits[0].argmin(-1, keepdim=True)).sum()
        (gradient,) = torch.autograd.grad(loss, outputs[-1])
        squares += gradient[0].square().sum(0)
        state = [s.detach() for s in after]
    handle.remove()
    assert torch.allclose(result[path], squares / 200, rtol=1e-3)


def test_the_model_is_left_as_it_was(spiking: LoadedModel, token_ids: Any) -> None:
    def interrupted(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        output_fisher(spiking, token_ids(300, 13), 0, interrupted)
    output_fisher(spiking, token_ids(300, 13), 0)
    assert not any(module._forward_hooks for module in spiking.module.modules())
    assert all(p.grad is None and not p.requires_grad for p in spiking.module.parameters())


def test_progress_reaches_the_end(bigram: LoadedModel, token_ids: Any) -> None:
    told: list[tuple[int, int]] = []
    output_fisher(bigram, token_ids(3000, 5), 0, lambda done, total: told.append((done, total)))
    assert [total for _, total in told] == [3000] * 3
    assert [done for done, _ in told[:2]] == [8 * fisher.WINDOW, 16 * fisher.WINDOW]
