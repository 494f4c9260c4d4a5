"""What machines and people read of a verdict: XML that parses, tables that hold, commands that are escaped."""

from __future__ import annotations

import json
from xml.etree import ElementTree

from toolchain.gate.checks import FAILED, NOT_COMPARABLE, PASSED, Check
from toolchain.gate.render import annotation_lines, benchmark_json, junit, markdown

CHECKS = (
    Check("size", PASSED, "1 MB", "1 MB", "may grow by 0.1%", 1000, "bytes"),
    Check("layers", FAILED, "2 layers", "1 changed", 'a|b: <int4> -> "int3" & more, 100%\nnext', 1, "layers"),
    Check("latency", NOT_COMPARABLE, "", "", "cpu was A, is B"),
    Check("top-1 agreement", PASSED, "90%", "91%", "", 91.0, "%"),
)


def test_junit() -> None:
    root = ElementTree.fromstring(junit("tiny\x07", CHECKS))
    suite = root.find("testsuite")
    assert root.tag == "testsuites" and suite is not None
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped"), suite.get("errors")) == (
        "4",
        "1",
        "1",
        "0",
    )
    cases = {case.get("name"): case for case in suite}
    assert {case.get("classname") for case in suite} == {"slmc.gate.tiny"}
    failure = cases["layers"].find("failure")
    assert failure is not None and '<int4> -> "int3" & more' in (failure.get("message") or "")
    skipped = cases["latency"].find("skipped")
    assert skipped is not None and skipped.get("message") == "cpu was A, is B"
    assert cases["size"].find("failure") is None


def test_markdown() -> None:
    lines = markdown("tiny", CHECKS).splitlines()
    assert lines[0] == "### slmc gate: tiny: 1 of 4 checks failed"
    table = [line.replace("\\|", "") for line in lines[2:]]
    assert len(table) == 6 and {line.count("|") for line in table} == {6}, "a cell has broken the table"
    assert markdown("tiny", CHECKS[:1]).startswith("### slmc gate: tiny: no regression")


def test_annotations() -> None:
    lines = annotation_lines("tiny", CHECKS)
    assert lines == [
        '::error title=slmc gate%3A layers::tiny: 2 layers -> 1 changed: a|b: <int4> -> "int3" & more, 100%25%0Anext',
        "::warning title=slmc gate%3A latency::tiny:  -> : cpu was A, is B",
    ]
    assert len(annotation_lines("tiny", CHECKS * 9)) == 10


def test_benchmark_json() -> None:
    assert json.loads(benchmark_json("tiny", CHECKS)) == [
        {"name": "tiny: size", "unit": "bytes", "value": 1000, "extra": "may grow by 0.1%"}
    ]
