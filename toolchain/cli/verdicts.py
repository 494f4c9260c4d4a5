"""Print the verdict on an artifact's promises, and choose the exit code."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from toolchain.cli.console import Console
from toolchain.delivery.promises import BROKEN_EXIT_CODE, Promise, broken, summary


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
