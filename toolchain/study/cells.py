"""The cells of a study as data: a format, and the stages that bring the layers into it."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

from exporters.artifact.errors import SlmcError

PRUNED = "fp16"
"""Behind the slash of 2:4/fp16: the kept weights are not rounded to integers, only pruning is looked at."""

SDQ = "1:8/int8+6:8/fp4-g16"
"""SDQ-W7:8-1:8int8-6:8fp4 in its authors' words."""

DISTIL = "distil"
"""The stage after all layers: end-to-end distillation from the fp32 model (toolchain.tuning)."""

DUAL = "dual inputs"
"""The stage that judges a decomposed format with inputs rounded twice (toolchain.study.dual)."""

OURS = {
    "pruned": ("alps", DISTIL),
    "integer": ("descent", DISTIL),
    "joint": ("descent", DISTIL),
}
"""The best pipeline that we have for each kind of format: a method for every layer, then stages for the whole model."""


@dataclass(frozen=True)
class Cell:
    """One row of the table. stages: what is done, in order; its name stands for them."""

    format: str
    method: str
    stages: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.format} {self.method}"

    @property
    def tuned(self) -> bool:
        return DISTIL in self.stages


def _kind(fmt: str) -> str:
    if fmt.endswith(f"/{PRUNED}"):
        return "pruned"
    return "joint" if ":" in fmt else "integer"


def _rows(formats: tuple[str, ...], methods: tuple[str, ...]) -> tuple[Cell, ...]:
    """Every format by every method, a method being its own only stage, and then by ours."""
    return tuple(
        Cell(fmt, method, OURS[_kind(fmt)] if method == "ours" else (method,))
        for fmt in formats
        for method in (*methods, "ours")
    )


CELLS: tuple[Cell, ...] = (
    *_rows(
        ("2:4/fp16", "4:8/fp16", "6:8/fp16"),
        ("magnitude", "wanda", "esparse", "esparse-shuffle", "ria", "ria-permutation", "sparsegpt", "alps"),
    ),
    *_rows(("int4-g64", "int3-g64", "int2-g64"), ("nearest", "gptq", "descent")),
    *(Cell(fmt, "gptq", ("gptq",)) for fmt in ("int5-g64", "int3-g128")),
    *_rows((SDQ,), ("magnitude", "wanda", "sparsegpt", "descent")),
    *(Cell(SDQ, f"{method}, {DUAL}", (method, DUAL)) for method in ("wanda", "descent")),
    *_rows(("2:4/int4-g64", "4:8/int4-g64", "6:8/int4-g64"), ("wanda", "sparsegpt", "descent")),
)
"""Every cell of a study, in the order of its table."""


@dataclass(frozen=True)
class Goal:
    """A format in which `ours` may lose at most `share` of what `rival` loses; without a rival, at most `share`."""

    format: str
    rival: str | None
    share: float


GOALS = (
    Goal("2:4/fp16", "sparsegpt", 0.5),
    Goal("4:8/fp16", "sparsegpt", 0.5),
    Goal("int3-g64", "gptq", 0.5),
    Goal("int2-g64", "gptq", 0.5),
    Goal(SDQ, None, 0.01),
)


def chosen(formats: tuple[str, ...], methods: tuple[str, ...], *, tuning: bool) -> tuple[Cell, ...]:
    """The cells whose format and method match any glob (all if there is none), tuned ones only with `tuning`.

    Raises:
        SlmcError: nothing matches.
    """

    def matches(name: str, globs: tuple[str, ...]) -> bool:
        return not globs or any(fnmatch.fnmatchcase(name, glob) for glob in globs)

    found = tuple(
        cell
        for cell in CELLS
        if matches(cell.format, formats) and matches(cell.method, methods) and (tuning or not cell.tuned)
    )
    if not found:
        known = dict.fromkeys(cell.format for cell in CELLS), dict.fromkeys(cell.method for cell in CELLS)
        raise SlmcError(
            f"no row of the study has such a format and method; formats are {', '.join(known[0])}, methods "
            f"{', '.join(known[1])}"
        )
    return found
