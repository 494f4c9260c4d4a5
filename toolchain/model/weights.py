"""Checkpoints opened without trust: safetensors, and torch state dicts that may hold nothing but tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from exporters.artifact.errors import SlmcError
from exporters.artifact.opening import file_size
from targets.device.verify import file_sha256
from toolchain.model.checkpoint import Checkpoint, StoredTensor
from toolchain.model.foreign import foreign_file, foreign_folder
from toolchain.model.shards import read_shards

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "model.pth",
    "model.pt",
)
"""Names that are looked for in a model directory, in this order; after them any single .pth, .safetensors or .pt."""

PLAIN_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Element types that weights may be stored in."""

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "module")
"""Where trainers put a state dict inside a checkpoint of theirs."""

WORTH_MAPPING_BYTES = 2**20

_FOREIGN_CODE = re.compile(r"GLOBAL ([A-Za-z_][\w.]*) (?:was not|whose)")
"""How torch names what a pickle wants to call."""


def find_weights(folder: Path) -> Path:
    """The weights file of a model directory.

    Raises:
        SlmcError: there is none, or more than one candidate.
    """
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    found = sorted([*folder.glob("*.pth"), *folder.glob("*.safetensors")])
    found = found or sorted(folder.glob("*.pt"))
    models = [path for path in found if not path.name.startswith("adapter_model.")]
    if len(models) == 1:
        return models[0]
    if not models and (known := foreign_folder(folder)):
        raise SlmcError(f"{folder}: {known}")
    what = f"several ({', '.join(p.name for p in found)})" if found else "none"
    raise SlmcError(f"{folder}: expected one weights file ({', '.join(WEIGHT_FILES)} or one .pth), found {what}")


def read_checkpoint(path: Path) -> Checkpoint:
    """Every tensor of a checkpoint file, or of an index's shards, memory-mapped where the format allows it.

    Raises:
        SlmcError: the file is truncated, no checkpoint, wants to run code, or holds numbers that are not finite.
    """
    file_size(path, "give a weights file, or a folder that holds one")
    if path.name.endswith(".index.json"):
        return read_shards(path, read_checkpoint)
    if known := foreign_file(path):
        raise SlmcError(f"{path}: {known}")
    tensors, config = (_read_safetensors(path), {}) if path.suffix == ".safetensors" else _read_torch(path)
    places = {name: StoredTensor(path, name) for name in tensors} if path.suffix == ".safetensors" else {}
    for name, tensor in tensors.items():
        if not is_plain(tensor):
            continue
        _refuse_expanded(path, name, tensor)
        # A place maps the tensor for the look alone: the pages of a model larger than memory do not pile up. It also
        # reads the header anew, which small tensors, of which there may be many, are not worth.
        mapped = places[name]() if places and tensor.nbytes >= WORTH_MAPPING_BYTES else tensor
        if bad := _not_finite(mapped):
            raise SlmcError(f"{path}: {name} holds {bad} values that are NaN or infinite; train or copy again")
    return Checkpoint(path, tensors, file_sha256(path), places, config)


def _refuse_expanded(path: Path, name: str, tensor: Tensor) -> None:
    """A tensor may repeat what is stored: four bytes that stand for gigabytes as soon as they are looked at."""
    stored = tensor.untyped_storage().nbytes()
    if tensor.nbytes > stored:
        raise SlmcError(
            f"{path}: {name} {list(tensor.shape)} stands for {tensor.nbytes} bytes, of which {stored} are stored (it "
            "was expanded); save it with .contiguous()"
        )


def _not_finite(tensor: Tensor) -> int:
    """How many values are NaN or infinite."""
    finite = torch.isfinite(tensor)
    return 0 if finite.all() else int((~finite).sum())


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor holds floats as they are: dense, in memory, of 16, 32 or 64 bits."""
    return tensor.dtype in PLAIN_TYPES and tensor.layout == torch.strided and not tensor.is_meta


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise SlmcError(f"{path}: no readable safetensors file ({_reason(error)}); copy it again") from error


def _read_torch(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        loaded = _load_mapped(path)
    except Exception as error:  # torch raises whatever its unpickler stumbles over in a damaged file
        if code := _FOREIGN_CODE.search(str(error)):
            raise SlmcError(
                f"{path}: the file wants to run code when it is opened ({code[1]}; not a plain state dict); refused. "
                "Ask its author for safetensors or for torch.save(model.state_dict())"
            ) from error
        raise SlmcError(f"{path}: no torch checkpoint, or truncated ({_reason(error)}); copy it again") from error
    return _state_dict(path, loaded), _config(loaded)


def _state_dict(path: Path, loaded: object) -> dict[str, Tensor]:
    """The tensors of what torch loaded: of the object itself, or of the state dict that a trainer put into it. Numbers,
    texts and counters beside them are of no use here."""
    while isinstance(loaded, Mapping):
        inside = [name for name in WRAPPERS if isinstance(loaded.get(name), Mapping)]
        if len(inside) > 1:
            raise SlmcError(
                f"{path}: several state dicts ({', '.join(inside)}); save the one that you mean with torch.save"
            )
        if not inside:
            break
        loaded = loaded[inside[0]]
    entries = loaded.items() if isinstance(loaded, Mapping) else ()
    tensors = {str(name): value for name, value in entries if isinstance(value, Tensor) and not _is_counter(value)}
    if not tensors:
        names = ", ".join(str(name) for name, _ in list(entries)[:6])
        found = type(loaded).__name__ + (f" of {names}" if names else "")
        raise SlmcError(
            f"{path}: expected a state dict (names to tensors), found a {found}; save the model with "
            "torch.save(model.state_dict(), FILE)"
        )
    return tensors


def _config(loaded: object) -> dict[str, Any]:
    """What a trainer's `config` says in numbers and words; nothing where there is none."""
    said = loaded.get("config") if isinstance(loaded, Mapping) else None
    entries = said.items() if isinstance(said, Mapping) else ()
    return {str(key): value for key, value in entries if value is None or isinstance(value, bool | int | float | str)}


def _is_counter(tensor: Tensor) -> bool:
    """A single whole number, as trainers keep of their steps."""
    return tensor.ndim == 0 and not tensor.is_floating_point() and not tensor.is_complex()


def _load_mapped(path: Path) -> object:
    """torch.load that only makes tensors; mapped into memory if the file is of the zip kind."""
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)


def _reason(error: Exception) -> str:
    """What an error says, in a line; torch's advice to load the file without its safeguard is not passed on."""
    if isinstance(error, UnpicklingError):
        return "no pickle of tensors"
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
