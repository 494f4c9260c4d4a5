"""The shapes of an operator's outputs, for torch to trace graphs with, by the names of the operator's arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def outputs_like(operator: Any, *arguments: str) -> None:
    """Every output has the shape and type of one of the operator's tensors, in this order."""
    _register(operator, lambda given: tuple(torch.empty_like(given[name]) for name in arguments))


def product_of_x(operator: Any) -> None:
    """The output is that of a product: x [..., K] -> [..., N]."""
    _register(operator, lambda given: (given["x"].new_empty(*given["x"].shape[:-1], given["N"]),))


def rows_of_tokens(operator: Any) -> None:
    """The output has a row of a table per token: tokens [...] -> float32 [..., K]."""

    def rows(given: dict[str, Any]) -> tuple[Tensor, ...]:
        tokens = given["tokens"]
        return (tokens.new_empty(*tokens.shape, given["K"], dtype=torch.float32),)

    _register(operator, rows)


def _register(operator: Any, outputs: Callable[[dict[str, Any]], tuple[Tensor, ...]]) -> None:
    names = [argument.name for argument in operator._opoverload._schema.arguments]

    def fake(*args: Any, **more: Any) -> Any:
        found = outputs(dict(zip(names, args, strict=False)) | more)
        return found if len(found) > 1 else found[0]

    operator.register_fake(fake)
