"""What README and docs say is there: commands and options, linked pages, named files; and README stays short."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from toolchain.cli.main import main

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
GUIDES = [page for page in PAGES if page.parent.name != "benchmarks"]
"""Benchmarks also show options of the scripts in benchmarks/."""

FOLDERS = ("benchmarks", "docs", "exporters", "samples", "targets", "tests", "toolchain")
WRITTEN = {"exporters/formats/quinary.py", "toolchain/model/shifted.py"}
"""Files that a reader of the recipes writes."""

RUNTIME_OPTIONS = {"--ids", "--print-ids"}
"""Of slmc-run alone."""

FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
FILE = re.compile(r"[\w*.-]+(?:/[\w*.-]+)*(?:/|\.(?:py|toml|ya?ml|md|cc|h|txt))")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def command_lines(page: Path) -> Iterator[list[str]]:
    """Words behind `slmc` of every command line in a fenced block."""
    for language, text in FENCE.findall(page.read_text(encoding="utf-8")):
        for line in text.replace("\\\n", " ").splitlines() if language in ("", "sh", "console") else ():
            for words in split_commands(line):
                if words[0] == "slmc" or (words[:2] == ["python", "benchmarks/within.py"] and "slmc" in words):
                    yield words[words.index("slmc") + 1 :]


def split_commands(line: str) -> list[list[str]]:
    """The words of every command of a shell line, comments and redirections cut off."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    commands: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("&|;"):
            commands.append([])
        else:
            commands[-1].append(word)
    return [words[: words.index(">")] if ">" in words else words for words in commands if words]


def found(words: list[str]) -> tuple[click.Command | None, list[str]]:
    """The command that words name, and the words behind its name; None where there is no such command."""
    command: click.Command | None = main
    rest = list(words)
    while isinstance(command, click.Group) and rest:
        command = command.get_command(click.Context(command), rest.pop(0))
    return command, rest


def options_of(command: click.Command) -> set[str]:
    here = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    if not isinstance(command, click.Group):
        return here | {"--help"}
    inside = (
        command.get_command(click.Context(command), name) for name in command.list_commands(click.Context(command))
    )
    return here.union(*(options_of(each) for each in inside if each))


@every_page
def test_command_lines_parse(page: Path) -> None:
    for words in command_lines(page):
        command, rest = found(words)
        assert command is not None, words
        try:
            command.make_context(words[0], rest)
        except click.exceptions.Exit:
            pass  # --help
        except click.UsageError as error:
            pytest.fail(f"slmc {shlex.join(words)}: {error.format_message()}")


@every_page
def test_commands_in_sentences_exist(page: Path) -> None:
    for span in SPAN.findall(prose(page)):
        if span.startswith("slmc ") and re.match(r"[a-z]", span[5:]):
            words = span.split()[1:]
            command, rest = found(words)
            assert command is not None, span
            assert set(OPTION.findall(" ".join(rest))) <= options_of(command), span


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: str(page.relative_to(ROOT)))
def test_options_in_sentences_exist(page: Path) -> None:
    for span in SPAN.findall(prose(page)):
        if span.startswith("--"):
            assert set(OPTION.findall(span)) <= options_of(main) | RUNTIME_OPTIONS, span


@every_page
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(prose(page)):
        if "://" not in target and not target.startswith(("#", "mailto:")):
            assert (page.parent / target.partition("#")[0]).exists(), target


@pytest.fixture(scope="module")
def files() -> set[str]:
    """Every file and folder of the project, folders with a stroke behind them."""
    everything = [path for folder in FOLDERS for path in (ROOT / folder, *(ROOT / folder).rglob("*"))]
    everything += [path for path in ROOT.iterdir() if path.is_file()]
    return {f"{path.relative_to(ROOT).as_posix()}{'/' if path.is_dir() else ''}" for path in everything}


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_files_exist(page: Path, files: set[str]) -> None:
    """Names that begin with a folder of ours are whole paths, others with a folder in them ends of paths; x is any."""
    for span in SPAN.findall(prose(page)):
        for name in FILE.findall(span) if " " not in span else ():
            if "*" in name or name != span or name in WRITTEN or Path(name).stem == "x":
                continue
            if name.split("/")[0] in FOLDERS:
                assert name in files, name
            elif "/" in name.rstrip("/") and name.endswith(".py"):
                assert any(path.endswith(f"/{name}") for path in files), name


def test_what_readers_write_is_not_there_yet() -> None:
    for name in WRITTEN:
        assert (ROOT / name).parent.is_dir() and not (ROOT / name).exists()


def test_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120 and max(map(len, lines)) <= 160


def test_every_page_is_in_the_navigation() -> None:
    named = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    assert named == {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
