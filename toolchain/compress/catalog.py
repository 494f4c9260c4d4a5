"""The compression methods by name, and the function that applies them to a weight matrix."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from exporters.artifact.errors import SlmcError
from exporters.formats.base import Encoded, Float32, Format
from exporters.formats.catalog import format_named
from exporters.formats.parts import Values
from toolchain.compress.corrected import correct
from toolchain.compress.descent import Descent, descend_jointly
from toolchain.compress.gptq import Gptq
from toolchain.compress.joint import compress_jointly
from toolchain.compress.layer_statistics import LayerStatistics
from toolchain.compress.lookup import named
from toolchain.compress.method import Method
from toolchain.compress.pruners import PRUNERS, Pruner
from toolchain.compress.recipe import LayerConfig
from toolchain.compress.rounding import Nearest, RangeSearch

INTEGER_METHODS: tuple[Method, ...] = (Nearest(), RangeSearch(), Gptq(), Descent())

METHODS: tuple[Method | Pruner, ...] = (*INTEGER_METHODS, *PRUNERS)
"""Integer methods, which every format supports, then pruners, which N:M and decomposed formats support."""

JOINTLY: dict[str, Callable[[Tensor, Format, Tensor], Encoded]] = {
    Gptq.name: compress_jointly,
    Descent.name: descend_jointly,
}
"""What the integer methods that use the Hessian do in sparse, decomposed and four-bit float formats."""


def method_named(name: str) -> Method | Pruner:
    """The method of that name.

    Raises:
        SlmcError: there is none.
    """
    return named(METHODS, name, "method")


def pruner_named(name: str) -> Pruner:
    """The pruner of that name.

    Raises:
        SlmcError: there is none.
    """
    return named(PRUNERS, name, "pruning method")


def method_takes(name: str, fmt: Format) -> bool:
    """Whether a method itself can bring a matrix into a format. See `method_for` for its substitutes."""
    method = method_named(name)
    if fmt.even:
        return any(name == m.name for m in INTEGER_METHODS)
    if name in JOINTLY:
        return bool(fmt.parts)
    return name == "nearest" or any(p.name == method.name and p.takes(fmt) for p in PRUNERS)


def method_for(name: str, fmt: Format, *, linear: bool) -> str:
    """The method for one layer in a format when `name` is requested for the whole model.

    Floats and signs are rounded to nearest. Embeddings have no Hessian and get range search instead of methods that
    need one. GPTQ replaces pruning methods in integer formats; nearest replaces `range` in sparse formats.

    Args:
        linear: whether the layer is a linear layer, not an embedding.
    """
    method = method_named(name)
    if fmt.even:
        if not linear and method.needs_hessian:
            return RangeSearch.name
        return name if method_takes(name, fmt) else Gptq.name if linear else RangeSearch.name
    if not fmt.parts or not linear:
        return Nearest.name
    return name if method_takes(name, fmt) else Gptq.name if method.needs_hessian else Nearest.name


def compress(weight: Tensor, config: LayerConfig, hessian: Tensor | None, entropy: Tensor | None = None) -> Encoded:
    """Compress a weight matrix with a format and a method.

    In sparse, decomposed and four-bit float formats `gptq` and `descent` round with error feedback; `nearest` and
    `range` prune by magnitude and round to nearest.

    Args:
        weight: [rows, cols].
        config: the format and the method.
        hessian: mean of x x^T, [cols, cols]; None if it was not collected.
        entropy: of the input channels, [cols]. Only esparse needs it.

    Raises:
        SlmcError: the method does not support this format, or a statistic that it needs was not collected.
    """
    fmt = format_named(config.format)

    def encode(normalised: Float32) -> Encoded:
        return _compressed(torch.from_numpy(normalised), fmt, config, LayerStatistics(hessian, entropy))

    return fmt.normally(weight.detach().float().numpy(), encode)


def _compressed(w: Tensor, fmt: Format, config: LayerConfig, statistics: LayerStatistics) -> Encoded:
    """Like `compress`, for a normalised matrix (exporters.formats.scales)."""
    method, hessian = method_named(config.method), statistics.hessian
    if fmt.correction:
        return correct(w, fmt.correction, _integer(method.name, fmt.correction.values), hessian)
    if fmt.patterned and any(p.name == config.method for p in PRUNERS):
        return pruner_named(config.method).compress(w, fmt, statistics)
    if fmt.even:
        (part,) = fmt.parts
        return fmt.from_plain(_integer(method.name, part.values).compress(w, part.values, hessian))
    if fmt.parts and method.name in JOINTLY and hessian is not None:
        return JOINTLY[method.name](w, fmt, hessian)
    return fmt.nearest(w.numpy())


def _integer(name: str, fmt: Values) -> Method:
    for method in INTEGER_METHODS:
        if method.name == name:
            return method
    names = ", ".join(m.name for m in INTEGER_METHODS)
    raise SlmcError(f"method {name} prunes, and format {fmt.name} keeps every weight; give it one of {names}")
