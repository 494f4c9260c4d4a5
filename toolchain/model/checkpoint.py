"""The tensors of a model as they lie on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from exporters.artifact.errors import SlmcError


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a safetensors file, mapped anew when it is asked for, so that its pages stay no longer than it."""

    file: Path
    name: str

    def __call__(self) -> Tensor:
        """The tensor as it is stored.

        Raises:
            SlmcError: the file is not what it was.
        """
        try:
            with safe_open(self.file, framework="pt") as stored:
                tensor: Tensor = stored.get_tensor(self.name)
                return tensor
        except (SafetensorError, OSError) as error:
            raise SlmcError(f"{self.file}: {self.name} can no longer be read ({error}); was it changed?") from error


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of one file by name, and the file's SHA-256; of several shards, that of their digests in order.

    places: where single tensors can be read again; of safetensors all, of others none.
    config: what a trainer's file says of the model beside its tensors.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    sha256: str
    places: Mapping[str, Callable[[], Tensor]] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)

    def reader(self, name: str) -> Callable[[], Tensor]:
        """A way to a tensor that keeps it in memory only if there is no other."""
        if name in self.places:
            return self.places[name]
        tensor = self.tensors[name]
        return lambda: tensor
