"""What every report is made of: the manifest and the search behind it, read from and written to report.json."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from exporters.manifest import Manifest, parse


@dataclass(frozen=True)
class LayerRow:
    """One layer as it was and as it is; block is 'emb', 'blocks.3', 'head'."""

    path: str
    block: str
    rows: int
    cols: int
    format: str
    method: str
    bytes: int
    bytes_fp32: int
    activations: str = "fp32"


@dataclass(frozen=True)
class Point:
    """One evaluated candidate: bytes as stored, relative drop as judged and its upper bound, who proposed it, why.

    predicted_ms: per generated token on the target, from its measured costs; None without any.
    """

    bytes: int
    drop: float
    upper: float
    kl_mean: float
    tier: str
    why: str
    on_frontier: bool
    winner: bool
    predicted_ms: float | None = None


@dataclass(frozen=True)
class SensitivityRow:
    """What one layer alone is expected to lose in one format, nats per token (see toolchain/search/sensitivity.py)."""

    layer: str
    format: str
    loss: float
    bytes: int


@dataclass(frozen=True)
class FamilyRow:
    """What a family of sparse formats gave in the search: its candidate that does best beside dense ones.

    layers: of the winner that are stored so. formats: of this family in the candidate. bytes, drop, upper,
    predicted_ms: the candidate's. dense_drop: what dense candidates reach in as many bytes, None where none is so
    small; dense_ms: predicted of the nearest of them.
    """

    family: str
    layers: int
    formats: str
    bytes: int
    drop: float
    upper: float
    predicted_ms: float | None
    dense_drop: float | None
    dense_ms: float | None

    @property
    def verdict(self) -> str:
        if self.dense_drop is None:
            return "smaller than any dense candidate"
        if self.upper <= self.dense_drop:
            return "pays"
        return "about even" if self.drop <= self.dense_drop else "does not pay here"


@dataclass(frozen=True)
class Predicted:
    """Milliseconds per generated token of the artifact's own graph, and whether from measured costs or estimated."""

    ms: float
    basis: str


@dataclass(frozen=True)
class Report:
    """Everything that a report shows. max_bytes and max_drop are the constraints as asked, None if there was none."""

    manifest: Manifest
    layers: tuple[LayerRow, ...]
    points: tuple[Point, ...]
    sensitivities: tuple[SensitivityRow, ...]
    max_bytes: int | None
    max_drop: float | None
    objective: str
    sample_prompt: str
    sample_text: str
    families: tuple[FamilyRow, ...] = ()
    screening: str = ""
    predicted: Predicted | None = None

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"


def report_from_json(raw: Any) -> Report:
    """The report that `to_json` wrote.

    Raises:
        SlmcError: a field is missing, unknown or of another type.
    """
    report: Report = parse(Report, raw, "report.json")
    return report
