"""What calibration gathers of a model's layers, kept in the work folder and read from there when a build goes on."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from toolchain.calibration.entropy import channel_entropies
from toolchain.calibration.fisher import output_fisher
from toolchain.calibration.hessian import accumulate_hessians, input_hessians, linear_layers
from toolchain.calibration.hessian_file import GrowingFile, StoredTensors
from toolchain.files.progress import Progress
from toolchain.files.workspace import write_whole
from toolchain.model.catalog import LoadedModel
from toolchain.model.text import Reading, Text


@dataclass(frozen=True)
class CalibrationStatistics:
    """What calibration gave, by layer path: input hessians [cols, cols] and output Fisher [rows] of linear layers,
    [cols] of embeddings; the frequency of every token [vocabulary]; entropies of input channels [cols] if a method
    asks for them."""

    hessians: Mapping[str, Tensor]
    fisher: Mapping[str, Tensor]
    frequency: Tensor
    entropies: Mapping[str, Tensor] = field(default_factory=dict)


def gather_statistics(
    model: LoadedModel, text: Text, folder: Path, progress: Progress, *, seed: int, entropy: bool
) -> CalibrationStatistics:
    """Input hessians and output Fisher of every layer, from the calibration text; kept in the work folder.

    Those of a model that stays on disk stay there too.

    Args:
        seed: of what the Fisher information draws. entropy: whether channels' entropies are asked for.
    """
    ids = text.reading
    file = folder / "statistics.safetensors"
    frequency = token_frequency(text.ids, model.tree.vocabulary)
    if model.residency == "disk":
        if not _readable(file):
            vectors = _vectors(model, ids, progress, seed=seed, entropy=entropy)
            _gather_on_disk(model, vectors, ids, file, progress)
        stored_hessians, fisher, entropies = (
            StoredTensors(file, f"{kind}.") for kind in ("hessian", "fisher", "entropy")
        )
        return CalibrationStatistics(stored_hessians, fisher, frequency, entropies)
    stored = _stored_statistics(file)
    if stored is None:
        hessians = input_hessians(model, ids, lambda done, total: progress("calibration", done, total))
        progress("calibration", len(ids), len(ids))
        stored = {f"hessian.{p}": t for p, t in hessians.items()} | _vectors(
            model, ids, progress, seed=seed, entropy=entropy
        )
        write_whole(file, save(stored))  # its own save_file hides a full disk in an error of another kind
    parts = {
        kind: {n.removeprefix(f"{kind}."): t for n, t in stored.items() if n.startswith(f"{kind}.")}
        for kind in ("hessian", "fisher", "entropy")
    }
    return CalibrationStatistics(parts["hessian"], parts["fisher"], frequency, parts["entropy"])


def _vectors(
    model: LoadedModel, ids: Reading, progress: Progress, *, seed: int, entropy: bool
) -> dict[str, torch.Tensor]:
    """The small statistics by their names in the file: output Fisher, and entropies if they are asked for."""
    fisher = output_fisher(model, ids, seed, lambda d, t: progress("Fisher information", d, t))
    vectors = {f"fisher.{p}": t for p, t in fisher.items()}
    if entropy:
        entropies = channel_entropies(model, ids, progress=lambda d, t: progress("entropies", d, t))
        vectors |= {f"entropy.{p}": t for p, t in entropies.items()}
    return vectors


def _gather_on_disk(
    model: LoadedModel, vectors: Mapping[str, torch.Tensor], ids: Reading, file: Path, progress: Progress
) -> None:
    """The same file, with one hessian in memory at a time."""
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
    """Share of every token in a text, one added to each count so that no token is free, float32 [vocabulary]."""
    counts = torch.bincount(ids, minlength=vocabulary).float() + 1
    return counts / counts.sum()
