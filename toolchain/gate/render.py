"""The gate's verdict as JUnit XML, Markdown, GitHub annotations and JSON for a chart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from toolchain.gate.checks import FAILED, NOT_COMPARABLE, PASSED, Check

ANNOTATIONS = 10
"""GitHub shows so many of a kind per step."""

_MARKS = {PASSED: "ok", FAILED: "**failed**", NOT_COMPARABLE: "not comparable"}
_SMALLER_IS_BETTER = ("bytes", "perplexity", "ms")


def junit(name: str, checks: Sequence[Check]) -> str:
    """JUnit XML: one test case per check; what is not comparable is skipped."""
    failed = sum(check.status == FAILED for check in checks)
    skipped = sum(check.status == NOT_COMPARABLE for check in checks)
    suite = ElementTree.Element(
        "testsuite", name="slmc gate", tests=str(len(checks)), failures=str(failed), errors="0", skipped=str(skipped)
    )
    for check in checks:
        case = ElementTree.SubElement(
            suite, "testcase", classname=f"slmc.gate.{_plain(name)}", name=check.name, time="0"
        )
        text = _plain(f"{check.before} -> {check.now}: {check.why}" if check.before else check.why)
        if check.status == FAILED:
            ElementTree.SubElement(case, "failure", message=text, type="regression").text = text
        elif check.status == NOT_COMPARABLE:
            ElementTree.SubElement(case, "skipped", message=text)
        else:
            ElementTree.SubElement(case, "system-out").text = text
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _plain(text: str) -> str:
    """Text without the control characters that XML cannot hold."""
    return "".join(c for c in text if c >= " " or c in "\t\n\r")


def markdown(name: str, checks: Sequence[Check]) -> str:
    """A table for a step summary."""
    failed = sum(check.status == FAILED for check in checks)
    verdict = f"{failed} of {len(checks)} checks failed" if failed else "no regression"
    lines = [f"### slmc gate: {_cell(name)}: {verdict}", "", "| check | | before | now | |", "|---|---|---|---|---|"]
    lines += [
        f"| {check.name} | {_MARKS[check.status]} | {_cell(check.before)} | {_cell(check.now)} | {_cell(check.why)} |"
        for check in checks
    ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def annotation_lines(name: str, checks: Sequence[Check]) -> list[str]:
    """GitHub's workflow commands: an error per failed check, a warning per one that cannot be compared; ten at most."""
    lines = []
    for status, command in ((FAILED, "error"), (NOT_COMPARABLE, "warning")):
        for check in checks:
            if check.status == status:
                title = _property(f"slmc gate: {check.name}")
                lines.append(
                    f"::{command} title={title}::{_data(f'{name}: {check.before} -> {check.now}: {check.why}')}"
                )
    return lines[:ANNOTATIONS]


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def benchmark_json(name: str, checks: Sequence[Check]) -> str:
    """github-action-benchmark's customSmallerIsBetter: the figures that are better when smaller."""
    rows: list[dict[str, Any]] = [
        {"name": f"{name}: {check.name}", "unit": check.unit, "value": check.value, "extra": check.why}
        for check in checks
        if check.value is not None and check.unit in _SMALLER_IS_BETTER
    ]
    return json.dumps(rows, indent=2) + "\n"
