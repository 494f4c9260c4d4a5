"""Results of cells, and the file that keeps them: one line of JSON each, a damaged line is ignored."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolchain.files.journal import KeyedLines


@dataclass(frozen=True)
class Result:
    """What a cell gave.

    reference: perplexity of the fp32 model; relative_drop: perplexity / reference - 1, and its standard error in nats;
    kl_mean: nats per token; layer_error: mean over layers of the relative squared output error; bytes: of the
    compressed layers as stored; bits_per_weight: as stored; ideal_bits: with the best possible index; throughput: in
    products beside 16-bit ones, by formula; seconds: of CPU time, evaluation not counted.
    """

    format: str
    method: str
    stages: tuple[str, ...]
    perplexity: float
    reference: float
    relative_drop: float
    standard_error: float
    bits_per_byte: float
    kl_mean: float
    top1_agreement: float
    layer_error: float
    bytes: int
    bits_per_weight: float
    ideal_bits: float
    throughput: float
    seconds: float


def read_results(file: Path) -> KeyedLines[Result]:
    """The results in a file, by key."""
    return KeyedLines(file, "result", _decoded, dataclasses.asdict)


def _decoded(raw: dict[str, Any]) -> Result:
    return Result(**{**raw, "stages": tuple(raw["stages"])})
