"""Checkpoints in several files, with the index that Hugging Face writes beside them: which tensor lies in which."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from exporters.artifact.errors import SlmcError
from exporters.artifact.opening import read_json
from toolchain.model.checkpoint import Checkpoint


def read_shards(index: Path, read: Callable[[Path], Checkpoint]) -> Checkpoint:
    """Every tensor of every shard that an index names, after comparing the two.

    Args:
        read: opens one shard.

    Raises:
        SlmcError: the index is none, a shard is missing or damaged, or does not hold what the index says.
    """
    places = _read_index(index)
    tensors: dict[str, Tensor] = {}
    stored: dict[str, Callable[[], Tensor]] = {}
    digest = hashlib.sha256()
    for file in sorted(set(places.values())):
        path = index.parent / file
        if not path.is_file():
            raise SlmcError(f"{index}: names the shard {file}, which is not there; copy the whole model again")
        shard = read(path)
        wanted = {name for name, place in places.items() if place == file}
        _compare(index, file, wanted, set(shard.tensors))
        tensors |= shard.tensors
        stored |= shard.places
        digest.update(bytes.fromhex(shard.sha256))
    return Checkpoint(index, tensors, digest.hexdigest(), stored)


def _compare(index: Path, file: str, wanted: set[str], found: set[str]) -> None:
    for what, names in (("does not hold", wanted - found), ("also holds", found - wanted)):
        if names:
            some = ", ".join(sorted(names)[:4])
            raise SlmcError(
                f"{index}: the shard {file} {what} {some}, unlike the index says; the files are not of one model, copy "
                "it again"
            )


def _read_index(index: Path) -> dict[str, str]:
    """Tensor name to file name, none of which leaves the folder."""
    content = read_json(index, "copy the model again")
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(file, str) for file in places.values()):
        raise SlmcError(f"{index}: no weight_map of tensor names to files; copy the model again")
    for file in places.values():
        if Path(file).name != file:
            raise SlmcError(f"{index}: the shard {file!r} does not lie beside the index; refused")
    return places
