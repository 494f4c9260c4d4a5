"""Statistics of a rotated model: told from those before, they are what calibration finds on the rotated model."""

from __future__ import annotations

import torch

from tests.toolchain.transform.test_rotation import BIASES, everything, llama, loaded
from toolchain.calibration.hessian import input_hessians
from toolchain.calibration.statistics import CalibrationStatistics
from toolchain.model.catalog import LoadedModel
from toolchain.transform.rotation import rotated
from toolchain.transform.statistics import is_exact, rotated_statistics

IDS = torch.randint(0, 20, (160,), generator=torch.Generator().manual_seed(2))


def tied() -> LoadedModel:
    model = loaded(*llama(tied=True))
    model.module.float()
    return model


def statistics_of(model: LoadedModel) -> CalibrationStatistics:
    rows = {layer.path: layer.rows for layer in model.tree.layers}
    fisher = {path: torch.arange(1.0, 1 + n) for path, n in rows.items()} | {"embed_tokens": torch.arange(8.0)}
    return CalibrationStatistics(input_hessians(model, IDS), fisher, torch.full((20,), 0.05), {})


def test_hessians_are_those_of_the_rotated_model() -> None:
    model = tied()
    stream, heads = everything(model)
    told = rotated_statistics(model, statistics_of(model), stream, heads).hessians
    found = input_hessians(rotated(model, stream, heads), IDS)
    assert told.keys() == found.keys() and "norm.product" in told
    for path, hessian in found.items():
        assert torch.allclose(told[path], hessian, rtol=1e-3, atol=1e-4 * float(hessian.diagonal().max())), path


def test_fisher_information_is_spread_over_what_is_mixed() -> None:
    """1 to 8 over the stream has mean 4.5; 1 to 12 over two heads of 6 values has means 3.5 and 9.5."""
    model = tied()
    fisher = rotated_statistics(model, statistics_of(model), *everything(model)).fisher
    assert fisher["layers.0.mlp.down_proj"].tolist() == [4.5] * 8
    assert fisher["layers.1.self_attn.v_proj"].tolist() == [3.5] * 6 + [9.5] * 6
    assert fisher["layers.0.mlp.up_proj"].tolist() == list(range(1, 13))
    assert fisher["embed_tokens"].tolist() == [3.5] * 8
    weight, rows = model.weight("lm_head"), torch.arange(1.0, 21.0)
    expected = float(((weight**2) * rows[:, None]).sum() / 8)
    assert torch.allclose(fisher["norm.product"], torch.full((8,), expected))


def test_heads_alone_leave_the_rest() -> None:
    model = tied()
    before = statistics_of(model)
    after = rotated_statistics(model, before, None, everything(model)[1])
    changed = {path for path, hessian in after.hessians.items() if hessian is not before.hessians[path]}
    assert changed == {"layers.0.self_attn.o_proj", "layers.1.self_attn.o_proj"}


def test_a_gain_of_zero_hides_a_channel() -> None:
    model = tied()
    stream, _ = everything(model)
    assert is_exact(model, stream)
    model.module.get_parameter("layers.1.input_layernorm.weight")[3] = 0
    assert not is_exact(model, stream)
    assert rotated_statistics(model, statistics_of(model), stream, ()).hessians["norm.product"].isfinite().all()


def test_biases_need_no_second_calibration() -> None:
    model = loaded(*llama(**BIASES))
    assert is_exact(model, everything(model)[0])
