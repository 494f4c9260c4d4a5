"""Results of cells, and the file that keeps them: one line of JSON each, a torn last line is forgotten."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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


class Results:
    """Results by key, written down as soon as they are known."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, Result] = {}
        if file.is_file():
            for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    entry: dict[str, Any] = json.loads(line)
                    stages = tuple(entry["result"].pop("stages"))
                    self._known[entry["key"]] = Result(**entry["result"], stages=stages)
                except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
                    continue

    def known(self, key: str) -> Result | None:
        return self._known.get(key)

    def add(self, key: str, result: Result) -> Result:
        """The result, after it has been written down."""
        line = json.dumps({"key": key, "result": dataclasses.asdict(result)})
        with self._file.open("a", encoding="utf-8") as out:
            out.write(f"\n{line}\n")  # what was torn before ends here
            out.flush()
            os.fsync(out.fileno())
        self._known[key] = result
        return result
