"""What every report is made of: the manifest and the search behind it, read from and written to report.json."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from exporters.artifact.manifest import Manifest
from exporters.artifact.parsing import parse
from toolchain.search.outcome import FamilyResult, LayerLoss, TriedCandidate
from toolchain.transform.transformation import Transformation


@dataclass(frozen=True)
class LayerRow:
    """One layer as it was and as it is; block is 'emb', 'blocks.3', 'head'.

    nonzero: the share of its inputs that is not zero, None where nobody counted; spikes: whether those are spikes;
    counts: whether they are whole numbers of spikes.
    """

    path: str
    block: str
    rows: int
    cols: int
    format: str
    method: str
    bytes: int
    bytes_fp32: int
    activations: str = "fp32"
    nonzero: float | None = None
    spikes: bool = False
    counts: bool = False


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
    points: tuple[TriedCandidate, ...]
    sensitivities: tuple[LayerLoss, ...]
    max_bytes: int | None
    max_drop: float | None
    objective: str
    sample_prompt: str
    sample_text: str
    families: tuple[FamilyResult, ...] = ()
    screening: str = ""
    predicted: Predicted | None = None
    transformations: tuple[Transformation, ...] = ()
    texts: str = ""

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"


def report_from_json(raw: Any) -> Report:
    """The report that `to_json` wrote.

    Raises:
        SlmcError: a field is missing, unknown or of another type.
    """
    report: Report = parse(Report, raw, "report.json")
    return report
