"""The calibration statistics of a model. The work folder keeps them, so that a resumed build reads them again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, load_file, save
from torch import Tensor

from toolchain.calibration.entropy import channel_entropies
from toolchain.calibration.fisher import output_fisher
from toolchain.calibration.hessian import accumulate_hessians, input_hessians, linear_layers
from toolchain.calibration.hessian_file import GrowingFile, StoredTensors
from toolchain.files.progress import Progress
from toolchain.files.workspace import write_whole
from toolchain.model.catalog import LoadedModel
from toolchain.model.text import Reading, Text

PARTS: Final = ("hessian", "fisher", "entropy")
"""Each takes a reading of the text by itself, and depends on no other."""

Elsewhere = Callable[[Sequence[str]], Sequence[bytes]]
"""Works parts out: each as a safetensors file, in the order asked for."""


@dataclass(frozen=True)
class CalibrationStatistics:
    """Statistics of the fp32 model on the calibration text.

    Attributes:
        hessians: by path of a linear layer, mean of x x^T over its inputs, float32 [cols, cols].
        fisher: by layer path, the output Fisher diagonal, float32 [rows]; [cols] of an embedding.
        frequency: share of every token, float32 [vocabulary].
        entropies: by path of a linear layer, of its input channels in nats, float32 [cols]. Empty unless a method
            needs them.
    """

    hessians: Mapping[str, Tensor]
    fisher: Mapping[str, Tensor]
    frequency: Tensor
    entropies: Mapping[str, Tensor] = field(default_factory=dict)


def gather_statistics(
    model: LoadedModel, text: Text, folder: Path, progress: Progress, *, seed: int, entropy: bool,
    name: str = "statistics", elsewhere: Elsewhere | None = None,
) -> CalibrationStatistics:  # fmt: skip
    """Collect the calibration statistics, or read them from the work folder if they are there.

    The statistics of a model that stays on disk stay on disk too.

    Args:
        folder: the work folder; name: of the file there.
        progress: called with the name of the step, the tokens read so far and the total.
        seed: for drawing tokens from the model's predictions (Fisher information).
        entropy: collect the entropies of input channels too.
        elsewhere: works parts out side by side, to the same bytes.

    Raises:
        OSError: the disk is full.
    """
    ids = text.reading
    file = folder / f"{name}.safetensors"
    frequency = token_frequency(text.ids, model.tree.vocabulary)
    if model.weight_storage == "disk":
        if not _readable(file):
            vectors = [statistics_part(part, model, ids, progress, seed=seed) for part in PARTS[1 : 2 + entropy]]
            _gather_on_disk(model, {n: t for part in vectors for n, t in part.items()}, ids, file, progress)
        stored_hessians, fisher, entropies = (StoredTensors(file, f"{kind}.") for kind in PARTS)
        return CalibrationStatistics(stored_hessians, fisher, frequency, entropies)
    stored = _stored_statistics(file)
    if stored is None:
        names = PARTS if entropy else PARTS[:-1]
        if elsewhere is None:
            found = [statistics_part(part, model, ids, progress, seed=seed) for part in names]
        else:
            found = [load(data) for data in elsewhere(names)]
        stored = {name: tensor for part in found for name, tensor in part.items()}
        write_whole(file, save(stored))  # save_file would hide a full disk behind another error
    parts = {
        kind: {n.removeprefix(f"{kind}."): t for n, t in stored.items() if n.startswith(f"{kind}.")} for kind in PARTS
    }
    return CalibrationStatistics(parts["hessian"], parts["fisher"], frequency, parts["entropy"])


def statistics_part(
    part: str, model: LoadedModel, ids: Reading, progress: Progress, *, seed: int
) -> dict[str, torch.Tensor]:
    """One of `PARTS` by the names of its tensors in the file. None depends on another."""
    if part == "hessian":
        found = input_hessians(model, ids, lambda d, t: progress("calibration", d, t))
        progress("calibration", len(ids), len(ids))
    elif part == "fisher":
        found = output_fisher(model, ids, seed, lambda d, t: progress("Fisher information", d, t))
    else:
        found = channel_entropies(model, ids, progress=lambda d, t: progress("entropies", d, t))
    return {f"{part}.{path}": tensor for path, tensor in found.items()}


def _gather_on_disk(
    model: LoadedModel, vectors: Mapping[str, torch.Tensor], ids: Reading, file: Path, progress: Progress
) -> None:
    """Write the same file with only one Hessian in memory at a time."""
    shapes = {f"hessian.{layer.path}": (layer.cols, layer.cols) for layer in linear_layers(model)}
    growing = GrowingFile(file.with_suffix(".partial"), shapes | {name: tuple(t.shape) for name, t in vectors.items()})
    for name, tensor in vectors.items():
        with growing.opened(name) as place:
            place.copy_(tensor)
    zeros = {layer.path: functools.partial(growing.opened, f"hessian.{layer.path}") for layer in linear_layers(model)}
    accumulate_hessians(model, ids, zeros, lambda done, total: progress("calibration", done, total))
    progress("calibration", len(ids), len(ids))
    growing.finish(file)


def _readable(file: Path) -> bool:
    try:
        with safe_open(file, framework="pt"):
            return True
    except (SafetensorError, OSError):
        return False


def _stored_statistics(file: Path) -> dict[str, torch.Tensor] | None:
    try:
        return load_file(file) if file.is_file() else None
    except (SafetensorError, OSError):
        return None


def token_frequency(ids: Tensor, vocabulary: int) -> Tensor:
    """The share of every token in a text, float32 [vocabulary].

    One is added to each count, so that no token has weight 0.
    """
    counts = torch.bincount(ids, minlength=vocabulary).float() + 1
    return counts / counts.sum()
