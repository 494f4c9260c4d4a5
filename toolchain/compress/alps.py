"""ALPS: an N:M mask by ADMM, and the best weights for a given mask by conjugate gradients.

Meng et al., ALPS (NeurIPS 2024): minimise tr((B - W) H (B - W)^T) over all B with N:M support.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from toolchain.compress.masks import best_mask


def damped(hessian: Tensor, damping: float) -> Tensor:
    """H + damping mean(diag H) I, float64 [cols, cols].

    A channel that was always zero in calibration gets the mean diagonal as well.
    """
    h = hessian.double()
    mean = h.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
    return h + torch.diag(damping * mean + (h.diagonal() == 0).double() * mean)


def solve_masked(weight: Tensor, mask: Tensor, hessian: Tensor, iterations: int = 10) -> Tensor:
    """B [rows, cols], zero outside the mask, that minimises tr((B - W) H (B - W)^T).

    Solves M (H M b - H w) = 0 for all rows at once by conjugate gradients with a Jacobi preconditioner (ALPS,
    section 3.3).

    Args:
        weight: W, float32 [rows, cols].
        mask: bool [rows, cols].
        hessian: H, positive definite [cols, cols].
        iterations: of conjugate gradients.
    """
    h = hessian.double()
    kept = mask.double()
    inverse_diagonal = h.diagonal().reciprocal()
    b = weight.double() * kept
    residual = ((weight.double() - b) @ h) * kept
    step = residual * inverse_diagonal
    direction = step
    energy = (residual * step).sum(1, keepdim=True)
    for _ in range(iterations):
        moved = (direction @ h) * kept
        curvature = (direction * moved).sum(1, keepdim=True)
        length = torch.where(curvature > 0, energy / curvature.clamp_min(1e-300), torch.zeros_like(energy))
        b = b + length * direction
        residual = residual - length * moved
        step = residual * inverse_diagonal
        after = (residual * step).sum(1, keepdim=True)
        direction = (
            step + torch.where(energy > 0, after / energy.clamp_min(1e-300), torch.zeros_like(energy)) * direction
        )
        energy = after
    return b.to(weight.dtype)


@dataclass(frozen=True)
class Alps:
    """Finds the mask by ADMM with a growing penalty.

    B = (H + rho I)^-1 (H W - V + rho D), D = the best N:M part of B + V / rho, V += rho (B - D), on columns scaled to
    H_jj = 1. Every third round rho is multiplied by 1.3, 1.2 or 1.1 if more than 10 %, more than 0.5 % or any of the
    support changed. The rounds end when the support is stable (ALPS, section 3.2 and appendix).
    """

    damping: float = 0.01
    rounds: int = 300
    first_penalty: float = 0.1

    def mask(self, weight: Tensor, hessian: Tensor, keep: int, of: int, shared_rows: int = 1) -> Tensor:
        """The mask, bool [rows, cols], with `keep` of every `of` inputs.

        Args:
            weight: W, float32 [rows, cols].
            hessian: H, [cols, cols].
            shared_rows: number of consecutive rows that share one pattern.
        """
        h = damped(hessian, self.damping)
        size = h.diagonal().sqrt()
        h = h / size / size[:, None]
        w = weight.double() * size
        values, vectors = torch.linalg.eigh(h)
        target = w @ h
        d, v = w, torch.zeros_like(w)
        rho, mask = self.first_penalty, torch.ones_like(w, dtype=torch.bool)
        unchanged = 0
        for i in range(self.rounds):
            b = ((target - v + rho * d) @ vectors / (values + rho)) @ vectors.t()
            wish = b + v / rho
            new = best_mask(wish.square(), keep, of, shared_rows)
            d = wish * new
            v = v + rho * (b - d)
            if i % 3 == 2:
                changed = float((new != mask).sum()) / float(new.sum())
                mask = new
                unchanged = unchanged + 1 if changed == 0 else 0
                if unchanged == 2:
                    break
                rho *= 1.3 if changed > 0.1 else 1.2 if changed > 0.005 else 1.1
        return mask
