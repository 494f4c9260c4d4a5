"""Print the verdict on an artifact's promises, and choose the exit code."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exporters.artifact.manifest import Manifest
from targets.device.verify import verify_unchanged
from toolchain.cli.console import Console
from toolchain.delivery.promises import BROKEN_EXIT_CODE, Found, Promise, broken, summary, verdict


def judged(artifact: Path, manifest: Manifest, found: Found) -> tuple[Promise, ...]:
    """The verdict on an artifact, provided that it is still the one that was measured.

    Raises:
        SlmcError: another artifact has taken its place.
    """
    verify_unchanged(artifact, manifest)
    return verdict(manifest, found)


def say_verdict(console: Console, promises: Sequence[Promise]) -> int:
    """Print every promise that was compared, and why others were not; returns the exit code."""
    rows = [(p.name, p.status, p.promised, p.found, p.tolerance, p.margin or p.why) for p in promises]
    console.table("promises", ("promise", "", "promised", "found", "tolerance", "margin"), rows)
    return exit_code(promises)


def exit_code(promises: Sequence[Promise]) -> int:
    """0, or 3 where a promise is broken."""
    return BROKEN_EXIT_CODE if broken(promises) else 0


def verdict_document(promises: Sequence[Promise]) -> dict[str, Any]:
    """The verdict for --json."""
    return {
        "verdict": summary(promises),
        "broken": list(broken(promises)),
        "promises": [dataclasses.asdict(promise) for promise in promises],
    }
