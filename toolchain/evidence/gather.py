"""What calibration gathers of a model's layers, kept in the work folder and read from there when a build goes on."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from toolchain.compress.pruners import PRUNERS
from toolchain.evidence.calibration import fill_moments, input_moments, linear_layers
from toolchain.evidence.entropy import channel_entropies
from toolchain.evidence.fisher import output_fisher
from toolchain.evidence.moment_file import GrowingFile, StoredTensors
from toolchain.model.catalog import LoadedModel
from toolchain.model.text import Reading, Text
from toolchain.search.evaluator import Evidence
from toolchain.search.problem import Problem
from toolchain.search.sensitivity import token_frequency

Progress = Callable[[str, int, int], None]


def gather_evidence(model: LoadedModel, text: Text, problem: Problem, folder: Path, progress: Progress) -> Evidence:
    """Input moments and output Fisher of every layer, from the calibration text; kept in the work folder.

    Those of a model that stays on disk stay there too.
    """
    ids = text.reading
    file = folder / "evidence.safetensors"
    frequency = token_frequency(text.ids, model.tree.vocabulary)
    if model.residency == "disk":
        if not _readable(file):
            _gather_on_disk(model, ids, problem, file, progress)
        moment, fisher, entropy = (StoredTensors(file, f"{kind}.") for kind in ("moment", "fisher", "entropy"))
        return Evidence(moment, fisher, frequency, entropy)
    stored = _stored_evidence(file)
    if stored is None:
        moments = input_moments(model, ids, lambda done, total: progress("calibration", done, total))
        progress("calibration", len(ids), len(ids))
        stored = {f"moment.{p}": t for p, t in moments.items()} | _vectors(model, ids, problem, progress)
        partial = file.with_suffix(".partial")
        partial.write_bytes(save(stored))  # its own save_file hides a full disk in an error of another kind
        partial.replace(file)
    parts = {
        kind: {n.removeprefix(f"{kind}."): t for n, t in stored.items() if n.startswith(f"{kind}.")}
        for kind in ("moment", "fisher", "entropy")
    }
    return Evidence(parts["moment"], parts["fisher"], frequency, parts["entropy"])


def needs_entropy(problem: Problem) -> bool:
    """Whether any layer may be pruned by a method that looks at the entropy of its inputs."""
    named = {choice.method for options in problem.options.values() for choice in options}
    return any(p.needs_entropy for p in PRUNERS if p.name in named)


def _vectors(model: LoadedModel, ids: Reading, problem: Problem, progress: Progress) -> dict[str, torch.Tensor]:
    """The evidence that is small, by its names in the file: output Fisher, and entropies where they are asked for."""
    fisher = output_fisher(model, ids, problem.seed, lambda d, t: progress("Fisher information", d, t))
    vectors = {f"fisher.{p}": t for p, t in fisher.items()}
    if needs_entropy(problem):
        entropies = channel_entropies(model, ids, progress=lambda d, t: progress("entropies", d, t))
        vectors |= {f"entropy.{p}": t for p, t in entropies.items()}
    return vectors


def _gather_on_disk(model: LoadedModel, ids: Reading, problem: Problem, file: Path, progress: Progress) -> None:
    """The same file, with one moment in memory at a time."""
    vectors = _vectors(model, ids, problem, progress)
    shapes = {f"moment.{layer.path}": (layer.cols, layer.cols) for layer in linear_layers(model)}
    growing = GrowingFile(file.with_suffix(".partial"), shapes | {name: tuple(t.shape) for name, t in vectors.items()})
    for name, tensor in vectors.items():
        with growing.opened(name) as place:
            place.copy_(tensor)
    zeros = {layer.path: functools.partial(growing.opened, f"moment.{layer.path}") for layer in linear_layers(model)}
    fill_moments(model, ids, zeros, lambda done, total: progress("calibration", done, total))
    progress("calibration", len(ids), len(ids))
    growing.finish(file)


def _readable(file: Path) -> bool:
    try:
        with safe_open(file, framework="pt"):
            return True
    except (SafetensorError, OSError):
        return False


def _stored_evidence(file: Path) -> dict[str, torch.Tensor] | None:
    try:
        return load_file(file) if file.is_file() else None
    except (SafetensorError, OSError):
        return None
