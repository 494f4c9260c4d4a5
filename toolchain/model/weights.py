"""Checkpoints opened without trust: safetensors, and torch state dicts that may hold nothing but tensors."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from exporters.errors import SlmcError

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin", "model.pth", "model.pt")
"""Names that are looked for in a model directory, in this order; after them any single .pth."""


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of one file by name, and the file's SHA-256."""

    path: Path
    tensors: Mapping[str, Tensor]
    sha256: str


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_weights(folder: Path) -> Path:
    """The weights file of a model directory.

    Raises:
        SlmcError: there is none, or more than one candidate.
    """
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    found = sorted([*folder.glob("*.pth"), *folder.glob("*.safetensors")])
    if len(found) == 1:
        return found[0]
    what = f"several ({', '.join(p.name for p in found)})" if found else "none"
    raise SlmcError(f"{folder}: expected one weights file ({', '.join(WEIGHT_FILES)} or one .pth), found {what}")


def read_checkpoint(path: Path) -> Checkpoint:
    """Every tensor of a checkpoint file, memory-mapped where the format allows it.

    Raises:
        SlmcError: the file is truncated, no checkpoint, wants to run code, or holds numbers that are not finite.
    """
    tensors = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            bad = int((~torch.isfinite(tensor)).sum())
            raise SlmcError(f"{path}: {name} holds {bad} values that are not finite (NaN or infinite); train or copy again")
    return Checkpoint(path, tensors, file_sha256(path))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise SlmcError(f"{path}: no readable safetensors file ({_first_line(error)}); copy it again") from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        loaded = _load_mapped(path)
    except pickle.UnpicklingError as error:
        if "Weights only load failed" in str(error) and "Unsupported" in str(error):
            raise SlmcError(
                f"{path}: the file wants to run code when it is opened (not a plain state dict); refused. "
                "Ask its author for safetensors or for torch.save(model.state_dict())"
            ) from error
        raise SlmcError(f"{path}: no torch checkpoint, or truncated ({_first_line(error)}); copy it again") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise SlmcError(f"{path}: no torch checkpoint, or truncated ({_first_line(error)}); copy it again") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not all(isinstance(t, Tensor) for t in loaded.values()) or not loaded:
        raise SlmcError(f"{path}: expected a state dict (names to tensors), found {type(loaded).__name__} of other things")
    return {str(name): tensor for name, tensor in loaded.items()}


def _load_mapped(path: Path) -> object:
    """torch.load that only makes tensors; mapped into memory if the file is of the zip kind."""
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
