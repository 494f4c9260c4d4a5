"""Tuning as a stage of a build, between the search and the delivery."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor, nn

from exporters.formats.base import Encoded
from toolchain.files.progress import Progress
from toolchain.model.catalog import LoadedModel
from toolchain.model.sharing import sharing_copy
from toolchain.model.text import Text
from toolchain.tuning.distil import SENTENCES, Schedule, tune

CHECKPOINT = "tuning.pt"
"""Checkpoint of an interrupted tuning, in the work folder."""

LONGEST_PIECE = 256
"""Tokens per piece of the text for a model with a context. Attention over longer pieces costs more than it helps."""


def piece_tokens(model: LoadedModel) -> int | None:
    """Tokens per piece that tuning reads; None for a model without a context."""
    context = model.forward.context
    return min(LONGEST_PIECE, context) if context else None


def tuned(
    model: LoadedModel, encoded: Mapping[str, Encoded], text: Text, schedule: Schedule, folder: Path,
    progress: Progress, say: Callable[[str], None],
) -> tuple[LoadedModel, dict[str, Encoded]]:  # fmt: skip
    """Tune the compressed layers by distillation. Their formats do not change.

    Args:
        encoded: every compressed layer.
        text: the whole calibration text, in pieces of `piece_tokens`.
        folder: the work folder, which holds the checkpoint.
        progress: called with the name of the stage, the steps done and the total.
        say: prints a line.

    Returns:
        The model with tuned vectors (norms, mixes, biases), and every layer.

    Raises:
        SlmcError: the calibration text is too short, or the loss is not finite.
    """
    if text.sentences is None:
        passes = schedule.tokens / max(1, len(text.ids))
        each = f"{schedule.tokens // schedule.steps} tokens, {passes:.1f} times the calibration text"
    else:
        passes = schedule.steps / len(text.sentences.batches(SENTENCES))
        each = f"up to {SENTENCES} sentences, {passes:.1f} times the calibration file"
    say(f"tuning: {schedule.steps} steps of {each}; each costs about four times a forward pass over them")
    result = tune(
        model, encoded, text.reading, schedule, folder / CHECKPOINT,
        lambda done, total: progress("tuning", done, total), piece=piece_tokens(model),
    )  # fmt: skip
    if result.held_out:
        best = min(result.held_out, key=lambda step: result.held_out[step])
        say(
            f"tuning: {_measure(schedule)} on held-out text {result.held_out[0]:.4f} before, "
            f"{result.held_out[best]:.4f} after step {best}, which is kept"
        )
    return with_vectors(model, result.vectors), result.encoded


def _measure(schedule: Schedule) -> str:
    share = schedule.objective.best_tokens
    return f"KL to fp32 + {share:g} x surprise at its best tokens" if share else "KL to fp32"


def with_vectors(model: LoadedModel, vectors: Mapping[str, Tensor]) -> LoadedModel:
    """A copy of a model with other vectors, by parameter name. All other tensors are shared with the original."""
    module = sharing_copy(model.module)
    for name, vector in vectors.items():
        holder, _, parameter = name.rpartition(".")
        setattr(module.get_submodule(holder), parameter, nn.Parameter(vector, requires_grad=False))
    return dataclasses.replace(model, module=module)
