"""Hessians compared with X^T X of inputs that a separate hook records."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from toolchain.calibration.hessian import input_hessians
from toolchain.model.catalog import LoadedModel


def test_hessians_of_a_bigram_by_hand(bigram: LoadedModel) -> None:
    """The head's inputs are rows of the table: 3 of token 1 and 1 of token 4 in a text of four tokens."""
    table = bigram.weight("emb")
    hessians = input_hessians(bigram, torch.tensor([1, 4, 1, 1]))
    expected = 0.75 * torch.outer(table[1], table[1]) + 0.25 * torch.outer(table[4], table[4])
    assert list(hessians) == ["head"]
    assert torch.allclose(hessians["head"], expected, atol=1e-6)
    assert hessians["head"].dtype == torch.float32


def test_hessians_of_a_spiking_model_over_several_chunks(spiking: LoadedModel, token_ids: Any) -> None:
    ids = token_ids(1100, 13)
    seen: dict[str, Tensor] = {}
    handles = []
    for layer in spiking.tree.layers:
        if layer.kind == "linear":

            def keep(_module: Any, inputs: Any, path: str = layer.path) -> None:
                seen[path] = inputs[0][0].double()

            handles.append(spiking.module.get_submodule(layer.path).register_forward_pre_hook(keep))
    spiking.forward(ids[None], spiking.forward.initial_state())
    for handle in handles:
        handle.remove()
    hessians = input_hessians(spiking, ids)
    assert hessians.keys() == seen.keys()
    assert len(hessians) == 15
    for path, x in seen.items():
        assert x.shape[0] == 1100
        expected = x.T @ x / 1100
        assert torch.allclose(hessians[path].double(), expected, atol=1e-3 * float(expected.abs().max())), path


def test_hessians_are_symmetric_and_not_negative(spiking: LoadedModel, token_ids: Any) -> None:
    for hessian in input_hessians(spiking, token_ids(300, 13)).values():
        assert torch.allclose(hessian, hessian.T, atol=1e-5)
        assert torch.linalg.eigvalsh(hessian.double()).min() > -1e-4


def test_the_model_is_left_as_it_was_even_after_an_interruption(spiking: LoadedModel, token_ids: Any) -> None:
    def interrupted(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        input_hessians(spiking, token_ids(300, 13), interrupted)
    input_hessians(spiking, token_ids(300, 13))
    assert not any(module._forward_pre_hooks for module in spiking.module.modules())
    assert not torch.is_inference_mode_enabled()


def test_progress_is_told(bigram: LoadedModel, token_ids: Any) -> None:
    told: list[tuple[int, int]] = []
    input_hessians(bigram, token_ids(1100, 5), lambda done, total: told.append((done, total)))
    assert told == [(0, 1100), (512, 1100), (1024, 1100)]
