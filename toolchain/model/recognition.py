"""Which family a checkpoint belongs to: by its config, its tensors and what the user says, never by its file name."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from exporters.artifact.errors import SlmcError
from toolchain.model.checkpoint import Checkpoint
from toolchain.model.classifier import WEIGHT
from toolchain.model.families import all_families
from toolchain.model.family import Family


class UnknownFamily(SlmcError):
    """No family knows the tensors of a checkpoint, which is kept to be looked at."""

    def __init__(self, text: str, checkpoint: Checkpoint) -> None:
        super().__init__(text)
        self.checkpoint = checkpoint


def candidates(checkpoint: Checkpoint, config: Mapping[str, Any], asked: str | None) -> list[tuple[Family, Checkpoint]]:
    """Families that a checkpoint may belong to, each with the checkpoint under the family's own names; one or more.

    Args:
        asked: the family that the user names, if any.

    Raises:
        SlmcError: there is none, the user names another than the config, or two tensors have one meaning.
    """
    families = all_families()
    known = {family.name: family for family in families}
    if asked is not None and asked not in known:
        raise SlmcError(f"--family {asked}: no such family; known are {', '.join(known)}")
    named = config.get("model_type")
    possible = [f for f in families if named is None or named in f.model_types]
    fitting = [(f, renamed) for f in possible if f.fits(shapes_of(renamed := _renamed(checkpoint, f)))]
    if not fitting:
        found = found_text(checkpoint, config)
        listed = ", ".join(known)
        raise UnknownFamily(f"{checkpoint.path}: no known model family; {found}; known families: {listed}", checkpoint)
    if any(WEIGHT in renamed.tensors for _, renamed in fitting) and len(fitting) > 1:
        fitting = [pair for pair in fitting if pair[0].classifies]
    chosen = [pair for pair in fitting if asked in (None, pair[0].name)]
    if not chosen:
        fits = ", ".join(f.name for f, _ in fitting)
        why = f"config.json says model_type {named!r}, and its" if named is not None else "its"
        raise SlmcError(f"--family {asked}: {why} tensors are those of family {fits}; leave the option out")
    for family, _ in chosen:
        _refuse_ambiguous(checkpoint, family)
    return chosen


def shapes_of(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    """Names of tensors to their shapes."""
    return {name: tuple(t.shape) for name, t in checkpoint.tensors.items()}


def _renamed(checkpoint: Checkpoint, family: Family) -> Checkpoint:
    names = {name: new for name in checkpoint.tensors if (new := family.rename(name)) is not None}
    tensors = {new: checkpoint.tensors[name] for name, new in names.items()}
    places = {new: checkpoint.places[name] for name, new in names.items() if name in checkpoint.places}
    return dataclasses.replace(checkpoint, tensors=tensors, places=places)


def _refuse_ambiguous(checkpoint: Checkpoint, family: Family) -> None:
    """Two tensors of one meaning: nobody can say which of them is the model's."""
    first: dict[str, str] = {}
    for name in checkpoint.tensors:
        new = family.rename(name)
        if new is not None and first.setdefault(new, name) != name:
            raise SlmcError(
                f"{checkpoint.path}: {first[new]} and {name} are the same tensor, {new}; remove one of them"
            )


def found_text(checkpoint: Checkpoint, config: Mapping[str, Any]) -> str:
    """What a checkpoint of no known family holds, in a line: its declared type, sizes, and names with numbers as *."""
    some = ", ".join(f"{name} x {n}" if n > 1 else name for name, n, _, _ in found_tensors(checkpoint)[:6])
    params = sum(t.numel() for t in checkpoint.tensors.values())
    declared = [f"{key} {config[key]!r}" for key in ("model_type", "architectures") if config.get(key)]
    declaration = f"config.json says {', '.join(declared)}, " if declared else ""
    return f"{declaration}found {params} values in {len(checkpoint.tensors)} tensors: {some}"


def found_tensors(checkpoint: Checkpoint) -> list[tuple[str, int, str, str]]:
    """Tensors whose names differ in numbers alone, in one row each: name, how many, shape of the first, types."""
    alike: dict[str, list[Tensor]] = {}
    for name, tensor in checkpoint.tensors.items():
        alike.setdefault(re.sub(r"\.[0-9]+\.", ".*.", name), []).append(tensor)
    return [
        (name, len(some), " x ".join(map(str, some[0].shape)), ", ".join(sorted({str(t.dtype)[6:] for t in some})))
        for name, some in alike.items()
    ]
