"""What a person sees while a command works: progress and notes on stderr, results on stdout."""

from __future__ import annotations

import io
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

import click
from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

LINE_EVERY_S = 20.0
"""Without a terminal a line of progress is printed this often."""


def strict(document: Any) -> Any:
    """The document with null for numbers that JSON does not have: infinities and NaN."""
    if isinstance(document, float):
        return document if math.isfinite(document) else None
    if isinstance(document, dict):
        return {key: strict(value) for key, value in document.items()}
    if isinstance(document, (list, tuple)):
        return [strict(value) for value in document]
    return document


def plain(text: str) -> str:
    """A name or sentence as it may be shown: what would move the cursor or is no character is written as its escape."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode("ascii") for c in text)


def said_with_escapes(stream: TextIO) -> None:
    """Have a stream write what its encoding lacks as escapes instead of failing."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")


class _Out(RichConsole):
    """Standard output that leaves a closed pipe to the command's own error handling."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class Console:
    """One command's output. With `as_json` stdout holds one JSON document and nothing else."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False, verbose: bool = False) -> None:
        self.as_json, self.quiet, self.verbose = as_json, quiet, verbose
        for stream in (sys.stdout, sys.stderr):
            said_with_escapes(stream)
        self._err = RichConsole(stderr=True, highlight=False)
        self._out = _Out(highlight=False, width=None if sys.stdout.isatty() else 120)
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._last_line = time.monotonic()

    def note(self, text: str) -> None:
        """A line on stderr, unless quiet."""
        if not self.quiet:
            self._err.print(plain(text), markup=False, soft_wrap=True)

    def detail(self, text: str) -> None:
        """A line on stderr with -v."""
        if self.verbose:
            self.note(text)

    def result(self, document: Any, text: str) -> None:
        """The command's answer on stdout: the document with --json, else the text."""
        click.echo(json.dumps(strict(document), indent=2) if self.as_json else plain(text))

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table on stdout; nothing with --json."""
        if self.as_json:
            return
        table = Table(title=Text(plain(title)) if title else None, title_justify="left")
        for i, column in enumerate(columns):
            table.add_column(Text(plain(column)), justify="left" if i == 0 else "right", overflow="fold")
        for row in rows:
            table.add_row(*(Text(plain(cell)) for cell in row))
        self._out.print(table)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Progress bars, with the time left, while the body runs; none if stderr is no terminal."""
        if self.quiet or not self._err.is_terminal:
            yield
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._err, transient=True) as self._bars:
            try:
                yield
            finally:
                self._bars, self._tasks = None, {}

    def progress(self, stage: str, done: int, total: int) -> None:
        """`done` of `total` of a stage."""
        if self._bars is not None:
            if stage not in self._tasks:
                self._tasks[stage] = self._bars.add_task(plain(stage), total=total)
            self._bars.update(self._tasks[stage], completed=done, total=total)
        elif not self.quiet and (time.monotonic() - self._last_line > LINE_EVERY_S or done == total):
            self._last_line = time.monotonic()
            self.note(f"{stage}: {done}/{total}")
