"""The workflows that we hand out: they are YAML, and every slmc command in them is one that slmc understands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import yaml

from toolchain.cli.main import main

WORKFLOWS = Path(__file__).parents[2] / "samples" / "ci"


@pytest.fixture(scope="module", params=["gate.yml", "gate-boards.yml"])
def workflow(request: pytest.FixtureRequest) -> dict[str, object]:
    document = yaml.safe_load((WORKFLOWS / request.param).read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


def commands(workflow: dict[str, object]) -> list[list[str]]:
    """Every slmc command as a shell would see it, the variables put in."""
    env, found = workflow["env"], []
    for step in workflow["jobs"]["gate"]["steps"]:
        text = re.sub(r"\$(\w+)", lambda match: env[match[1]], step.get("run", ""))
        if text.removeprefix("venv/bin/").startswith("slmc "):
            found.append(shlex.split(text)[1:])
    return found


def test_commands_parse(workflow: dict[str, object]) -> None:
    found = commands(workflow)
    assert [words[0] for words in found] == ["build", "gate"]
    for name, *words in found:
        command = main.get_command(click.Context(main), name)
        assert command is not None
        command.make_context(name, words)  # raises what click says of a flag that is not there


def test_results_are_kept_even_when_the_gate_fails(workflow: dict[str, object]) -> None:
    kept = workflow["jobs"]["gate"]["steps"][-1]
    gate = commands(workflow)[1]
    assert kept["if"] == "always()"
    for option in ("--junit", "--benchmark-json"):
        assert gate[gate.index(option) + 1] in kept["with"]["path"]
