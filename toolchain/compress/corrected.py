"""Integer weights with a correction: a diagonal or a low-rank product is added to the integers."""

from __future__ import annotations

import torch
from torch import Tensor

from exporters.formats.base import Encoded
from exporters.formats.corrected import half
from exporters.formats.parts import Correction
from toolchain.compress.alps import damped
from toolchain.compress.gptq import Gptq
from toolchain.compress.method import Method

ROUNDS = 3
"""Alternations between integers and low-rank product. Each runs the method once."""


def correct(weight: Tensor, fmt: Correction, method: Method, hessian: Tensor | None) -> Encoded:
    """A matrix as integers and their correction.

    Args:
        weight: float32 [rows, cols].
        method: rounds the integers.
        hessian: mean of x x^T, [cols, cols]. None: all inputs have the same weight.
    """
    h = torch.eye(weight.shape[1]) if hessian is None else damped(hessian, Gptq.damping).float()
    return _thin(weight, fmt, method, hessian, h) if fmt.rank else _diagonal(weight, fmt, method, hessian, h)


def _diagonal(weight: Tensor, fmt: Correction, method: Method, hessian: Tensor | None, h: Tensor) -> Encoded:
    """Round the matrix without its diagonal d, then choose the diagonal that minimises tr(E H E^T) for these integers:
    d_i + (E H)_ii / H_ii."""
    diagonal = weight.diagonal()
    values = method.compress(weight - torch.diag(diagonal), fmt.values, hessian)
    error = weight - torch.diag(diagonal) - torch.from_numpy(fmt.values.values_of(values))
    better = diagonal + (error @ h).diagonal() / h.diagonal()
    return fmt.store(values, {"diagonal": better.numpy()})


def _thin(weight: Tensor, fmt: Correction, method: Method, hessian: Tensor | None, h: Tensor) -> Encoded:
    """Alternate between integers for W - L R and the product L R closest to the error E of the integers.

    L R keeps the largest singular values of E H^1/2. SLiM does the same with the diagonal of H and in one round.
    """
    values, vectors = torch.linalg.eigh(h.double())
    root = values.clamp_min(1e-12 * float(values[-1])).sqrt()
    product, best, least = torch.zeros_like(weight), None, float("inf")
    for _ in range(ROUNDS):
        integers = method.compress(weight - product, fmt.values, hessian)
        error = weight - torch.from_numpy(fmt.values.values_of(integers))
        u, s, v = torch.linalg.svd(error.double() @ vectors * root, full_matrices=False)
        even = s[: fmt.rank].sqrt()
        left, right = u[:, : fmt.rank] * even, (even[:, None] * v[: fmt.rank] / root) @ vectors.T
        stored = fmt.store(integers, {"left": half(left.numpy()), "right": half(right.numpy())})
        product = torch.from_numpy(fmt.beside(stored))
        rest = error - product
        lost = float(((rest @ h) * rest).sum())
        if lost < least:
            best, least = stored, lost
    assert best is not None
    return best
