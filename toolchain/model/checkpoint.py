"""The tensors of a model as they lie on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of one file by name, and the file's SHA-256; of several shards, that of their digests in order."""

    path: Path
    tensors: Mapping[str, Tensor]
    sha256: str
