"""LIF and WKV as torch operators: native bodies and gradients against plain torch in float64, and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from equations import lif_reference, wkv_reference
from torch import Tensor

from exporters.artifact.errors import NotAvailable
from exporters.artifact.native_library import library_path
from exporters.ops.recurrences import SURROGATE_ALPHA, lif, spike, wkv

try:
    library_path()
except NotAvailable as missing:
    pytest.skip(str(missing), allow_module_level=True)

LIF_OPTIONS = [(2.0, 1.0, 0.0), (3.0, 0.5, -0.25)]
BATCH, TIME, CHANNELS = 2, 11, 13


def double(*values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def lif_arguments(seed: int = 0, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    current = torch.randn(BATCH, TIME, CHANNELS, generator=generator, dtype=torch.float64) * 2 + 0.5
    membrane = torch.randn(BATCH, CHANNELS, generator=generator, dtype=torch.float64)
    return [current.to(dtype), membrane.to(dtype)]


def wkv_arguments(started: bool, seed: int = 0, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    sequence = (BATCH, TIME, CHANNELS)
    arguments = [-torch.exp(normal(CHANNELS)), normal(CHANNELS), normal(*sequence) * 2, normal(*sequence)]
    states = [normal(BATCH, CHANNELS), normal(BATCH, CHANNELS).exp(), normal(BATCH, CHANNELS)]
    if not started:
        states = [torch.zeros_like(states[0]), torch.zeros_like(states[1]), torch.full_like(states[2], -1e38)]
    return [a.to(dtype) for a in (*arguments, *states)]


def gradients(outputs: tuple[Tensor, ...], inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """Of a fixed random weighing of the outputs."""
    generator = torch.Generator().manual_seed(7)
    loss = sum((o * torch.randn(o.shape, generator=generator, dtype=o.dtype)).sum() for o in outputs)
    assert isinstance(loss, Tensor)
    return torch.autograd.grad(loss, inputs)


# --- forward ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", LIF_OPTIONS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_lif_follows_its_reference(options, dtype, tolerance):
    arguments = lif_arguments(dtype=dtype)
    spikes, after = lif(*arguments, *options)
    expected_spikes, expected_after = lif_reference(*arguments, *options)
    assert spikes.dtype == dtype and 0 < spikes.mean() < 1
    torch.testing.assert_close(spikes, expected_spikes, rtol=0, atol=0)
    torch.testing.assert_close(after, expected_after, rtol=0, atol=tolerance)


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_wkv_follows_its_reference(started, dtype, tolerance):
    arguments = wkv_arguments(started, dtype=dtype)
    for found, expected in zip(wkv(*arguments), wkv_reference(*arguments), strict=True):
        assert found.dtype == dtype
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("cut", [1, 4, TIME - 1])
def test_chunks_are_the_whole(cut):
    current, membrane = lif_arguments()
    spikes, after = lif(current, membrane, *LIF_OPTIONS[0])
    first, between = lif(current[:, :cut], membrane, *LIF_OPTIONS[0])
    second, last = lif(current[:, cut:], between, *LIF_OPTIONS[0])
    torch.testing.assert_close(torch.cat([first, second], 1), spikes, rtol=0, atol=0)
    torch.testing.assert_close(last, after, rtol=0, atol=1e-12)

    decay, bonus, key, value, *states = wkv_arguments(started=True)
    y, *after_all = wkv(decay, bonus, key, value, *states)
    head, *states = wkv(decay, bonus, key[:, :cut], value[:, :cut], *states)
    tail, *states = wkv(decay, bonus, key[:, cut:], value[:, cut:], *states)
    torch.testing.assert_close(torch.cat([head, tail], 1), y, rtol=0, atol=1e-12)
    for found, expected in zip(states, after_all, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_strided_arguments_are_read_right():
    current, membrane = lif_arguments()
    strided = current.transpose(1, 2).contiguous().transpose(1, 2)
    assert not strided.is_contiguous()
    assert torch.equal(lif(strided, membrane, *LIF_OPTIONS[0])[0], lif(current, membrane, *LIF_OPTIONS[0])[0])
    decay, bonus, key, value, *states = wkv_arguments(started=True)
    strided = key.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(wkv(decay, bonus, strided, value, *states)[0], wkv(decay, bonus, key, value, *states)[0])


def test_batches_do_not_mix():
    current, membrane = lif_arguments()
    decay, bonus, key, value, *states = wkv_arguments(started=True)
    spikes, y = lif(current, membrane, *LIF_OPTIONS[0])[0], wkv(decay, bonus, key, value, *states)[0]
    for n in range(BATCH):
        one = slice(n, n + 1)
        assert torch.equal(lif(current[one], membrane[one], *LIF_OPTIONS[0])[0], spikes[one])
        assert torch.equal(wkv(decay, bonus, key[one], value[one], *(s[one] for s in states))[0], y[one])


# --- gradients by hand -----------------------------------------------------------------------------------------------


def test_surrogate_by_hand():
    """alpha / 2 / (1 + (pi / 2 alpha x)^2) with alpha 2: 1 at 0, 1 / (1 + pi^2) at 1."""
    assert SURROGATE_ALPHA == 2.0
    x = double(0.0, 1.0, -1.0).requires_grad_()
    y = spike(x)
    assert y.tolist() == [1, 1, 0]
    (grad,) = torch.autograd.grad(y.sum(), x)
    expected = [1, 1 / (1 + math.pi**2), 1 / (1 + math.pi**2)]
    torch.testing.assert_close(grad, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("operator", [lif, lif_reference])
@pytest.mark.parametrize(("x", "spike_gradient", "membrane_gradient"), [
    # u = x / 2 = 1: ds/du = 1, v = (1 - s) u: dv/du = 1 - s - u ds/du = -1; du/dx = 1/2
    (2.0, 0.5, -0.5),
    # u = 0: ds/du = 1 / (1 + pi^2), dv/du = 1
    (0.0, 0.5 / (1 + math.pi**2), 0.5),
])  # fmt: skip
def test_lif_gradient_by_hand(operator, x, spike_gradient, membrane_gradient):
    current, membrane = double([[x]]).requires_grad_(), double([0.0]).requires_grad_()
    s, v = operator(current, membrane, 2.0, 1.0, 0.0)
    # u = v0 + (x - v0) / 2: both arguments count one half
    for output, expected in ((s, spike_gradient), (v, membrane_gradient)):
        found = torch.autograd.grad(output.sum(), [current, membrane], retain_graph=True)
        assert [g.item() for g in found] == pytest.approx([expected, expected], abs=1e-12)


@pytest.mark.parametrize("operator", [wkv, wkv_reference])
def test_wkv_gradient_by_hand(operator):
    """y1 = (e^k0 v0 + e^(u + k1) v1) / (e^k0 + e^(u + k1)) with weights 1 and 6, values 1 and 4: 25/7."""
    decay, first = double(-math.log(2)).requires_grad_(), double(math.log(3)).requires_grad_()
    key = double([[0.0], [math.log(2)]]).requires_grad_()
    value = double([[1.0], [4.0]]).requires_grad_()
    y, *_ = operator(decay, first, key, value, double([0.0]), double([0.0]), double([-1e38]))
    grads = torch.autograd.grad(y[0, 1, 0], [decay, first, key, value])
    assert [g.flatten().tolist() for g in grads] == [
        pytest.approx([0], abs=1e-12),  # between two tokens nothing decays yet
        pytest.approx([18 / 49]),  # 6 (4 - 25/7) / 7
        pytest.approx([-18 / 49, 18 / 49]),  # 1 (1 - 25/7) / 7
        pytest.approx([1 / 7, 6 / 7]),
    ]


# --- gradients against autograd --------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", LIF_OPTIONS)
@pytest.mark.parametrize("seed", range(3))
def test_lif_gradients(options, seed):
    arguments = [a.requires_grad_() for a in lif_arguments(seed)]
    found = gradients(lif(*arguments, *options), arguments)
    expected = gradients(lif_reference(*arguments, *options), arguments)
    for f, e in zip(found, expected, strict=True):
        assert e.abs().max() > 0.1
        torch.testing.assert_close(f, e, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_wkv_gradients(started, seed):
    """Of y alone: states are carried from window to window as constants."""
    arguments = wkv_arguments(started, seed)
    trained = [a.requires_grad_() for a in arguments[:4]]
    found = gradients(wkv(*arguments)[:1], trained)
    expected = gradients(wkv_reference(*arguments)[:1], trained)
    for f, e in zip(found, expected, strict=True):
        assert e.abs().max() > 0.1
        torch.testing.assert_close(f, e, rtol=1e-9, atol=1e-9)


def test_states_of_wkv_get_no_gradient():
    arguments = [a.requires_grad_() for a in wkv_arguments(started=True)]
    grads = torch.autograd.grad(wkv(*arguments)[0].sum(), arguments, allow_unused=True)
    assert [g is None for g in grads] == [False] * 4 + [True] * 3


@pytest.mark.parametrize("operator", ["lif", "wkv"])
def test_torch_finds_the_operators_well_made(operator):
    """Schema, shapes without data, and registration of the gradient, as torch itself checks them."""
    if operator == "lif":
        arguments = (*(a.requires_grad_() for a in lif_arguments()), 2.0, 1.0, 0.0)
    else:
        arguments = tuple(wkv_arguments(started=True))
    torch.library.opcheck(
        getattr(torch.ops.slmc, operator).default,
        arguments,
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )
