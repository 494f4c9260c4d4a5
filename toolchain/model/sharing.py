"""Copies of modules that share their tensors."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def sharing_copy(module: M) -> M:
    """A copy of a module whose parameters and buffers are those of the original."""
    return copy.deepcopy(module, memo={id(t): t for t in (*module.parameters(), *module.buffers())})
