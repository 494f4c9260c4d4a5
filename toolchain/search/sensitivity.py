"""How much each layer is expected to lose in each format, from its rounding error and what the loss cares about."""

from __future__ import annotations

import torch
from torch import Tensor

from exporters.ops.activation_functions import ACTIVATION_GROUP
from toolchain.calibration.statistics import CalibrationStatistics
from toolchain.files.progress import StepProgress
from toolchain.model.tree import Layer
from toolchain.search.problem import Evaluator, Problem
from toolchain.search.values import Sensitivity


def expected_loss(error: Tensor, hessian: Tensor, fisher: Tensor) -> float:
    """1/2 sum_r F_r E_r H E_r^T: nats per token that a weight error E [rows, cols] costs to second order.

    H = mean of x x^T [cols, cols]; F = mean squared gradient of the loss to each output [rows]; inputs and gradients
    are taken as independent, as in K-FAC (Martens and Grosse, arXiv 1503.05671).
    """
    return 0.5 * float((((error @ hessian) * error).sum(1) * fisher).sum())


def feedback_loss(error: Tensor, importance: Tensor, fisher: Tensor) -> float:
    """1/2 sum_r F_r sum_j E_rj^2 / U_jj^2: what errors [rows, cols] of this size cost if each is made good.

    importance [cols] = 1 / U_jj^2, U as in toolchain.compress.gptq: the price of moving a column while all that follow
    may still answer. Errors of plain rounding stand for those of a pass with feedback, which are about as large.
    """
    return 0.5 * float(((error.square() * importance).sum(1) * fisher).sum())


def looked_up_loss(layer: Layer, error: Tensor, statistics: CalibrationStatistics) -> float:
    """What an error E [rows, cols] of a table costs, nats per token; 0 of a layer that nothing is looked up in."""
    table = layer.path if layer.kind != "linear" else layer.table
    if table is None:
        return 0.0
    even = torch.full((layer.rows,), 1 / layer.rows)
    frequency = even if layer.kind == "positions" else statistics.frequency
    return embedding_loss(error, frequency, statistics.fisher[table])


CREST = 4.0
"""Largest of a block of inputs over their root mean square: a guess, which ranks layers all the same."""


def activation_loss(weight: Tensor, hessian: Tensor, fisher: Tensor, group: int) -> float:
    """1/2 sum_r F_r sum_k W_rk^2 step_k^2 / 12: nats per token that inputs rounded to 8 bits cost.

    weight [rows, cols], hessian and fisher as for `expected_loss`; the step of a block is its largest input / 127
    (exporters.ops.activations), which CREST times its root mean square stands for; rounding errors are taken as
    uniform and independent.
    """
    blocks = torch.split(hessian.diagonal(), min(group, ACTIVATION_GROUP))
    step_square = torch.cat([block.mean().expand_as(block) for block in blocks]) * (CREST / 127) ** 2
    # No matrix product: it rounds by where its operands lie, and a resumed search must end with the same bytes.
    return 0.5 * float(((weight.square() * step_square).sum(1) * fisher).sum()) / 12


def sensitivities(problem: Problem, evaluator: Evaluator, progress: StepProgress) -> tuple[Sensitivity, ...]:
    """Every layer in every option."""
    results = []
    total = sum(len(options) for options in problem.options.values())
    evaluator.expect(losses=[
        (layer.path, config) for layer in problem.tree.layers for config in problem.options[layer.path]
        if layer.exact != config.format
    ])  # fmt: skip
    for layer in problem.tree.layers:
        for config in problem.options[layer.path]:
            exact = layer.exact == config.format
            loss = 0.0 if exact else evaluator.loss(layer.path, config)
            results.append(Sensitivity(layer.path, config, loss, problem.layer_bytes(layer, config)))
            progress(len(results), total)
    return tuple(results)


def embedding_loss(error: Tensor, frequency: Tensor, fisher: Tensor) -> float:
    """The same for an embedding: 1/2 sum_t p_t sum_c F_c E_tc^2, with p [rows] the frequency of each token."""
    return 0.5 * float((error.square() @ fisher * frequency).sum())
