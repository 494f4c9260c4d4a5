"""The compression methods by name, and the one way to apply a choice to a weight matrix."""

from __future__ import annotations

from torch import Tensor

from exporters.errors import SlmcError
from exporters.formats.base import Encoded
from exporters.formats.catalog import format_named
from exporters.formats.event import EventFormat
from exporters.formats.integer import IntegerFormat
from toolchain.compress.descent import Descent, descend_jointly
from toolchain.compress.gptq import Gptq
from toolchain.compress.joint import JointFormat, compress_jointly
from toolchain.compress.method import Method
from toolchain.compress.recipe import Choice
from toolchain.compress.rounding import Nearest, RangeSearch

METHODS: tuple[Method, ...] = (Nearest(), RangeSearch(), Gptq(), Descent())


def method_named(name: str) -> Method:
    """The method of that name.

    Raises:
        SlmcError: there is none.
    """
    for method in METHODS:
        if method.name == name:
            return method
    raise SlmcError(f"unknown method {name!r}; allowed are {', '.join(m.name for m in METHODS)}")


def compress(weight: Tensor, choice: Choice, hessian: Tensor | None) -> Encoded:
    """A weight matrix [rows, cols] as its choice stores it.

    Sparse, decomposed and four-bit float formats know two ways: with the Hessian, if the method wants it, or nearest.
    """
    fmt, method, w = format_named(choice.format), method_named(choice.method), weight.detach().float()
    if isinstance(fmt, EventFormat):
        return fmt.from_dense(compress(weight, Choice(fmt.dense.name, choice.method), hessian))
    if isinstance(fmt, IntegerFormat):
        return method.compress(w, fmt, hessian)
    if isinstance(fmt, JointFormat) and method.needs_hessian and hessian is not None:
        return (descend_jointly if method.name == Descent.name else compress_jointly)(w, fmt, hessian)
    return fmt.encode(w.numpy())
