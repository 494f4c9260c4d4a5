"""Tables with tabs or commas between their columns, as spreadsheets, pandas and GLUE write them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from exporters.artifact.errors import SlmcError
from toolchain.model.records import LABEL_FIELD, TEXT_FIELD, Record

SENTENCE_FIELD: Final = "sentence"
LAYOUT: Final = "two columns with a tab between, a sentence and its label, and a header that names one of them 'label'"

Row = tuple[int, list[str]]
"""The line that a row begins in, and its cells."""


def table_records(path: Path, text: str, field: str | None, *, tabs: bool) -> tuple[Record, ...]:
    """The rows of a table as records, their cells without blanks at their ends.

    A header is known by a column 'label', 'sentence', 'text' or the user's own. Columns apart by commas (or semicolons)
    need one; with tabs and without a header there are two columns, and the label comes first.

    Raises:
        SlmcError: a row has not as many columns as the header, or the header tells nothing.
    """
    known = {LABEL_FIELD, SENTENCE_FIELD, TEXT_FIELD, *([field.lower()] if field else [])}
    rows = _tabs(path, text) if tabs else _commas(path, text, known)
    if not rows:
        return ()
    header = [cell.strip() for cell in rows[0][1]]
    names = [cell.lower() if cell.lower() in (LABEL_FIELD, SENTENCE_FIELD, TEXT_FIELD) else cell for cell in header]
    if any(cell.lower() in known for cell in header):
        rows = rows[1:]
    else:
        names = [LABEL_FIELD, SENTENCE_FIELD]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SlmcError(f"{path}: its header names {twice!r} twice; rename a column")
    for line, cells in rows:
        if len(cells) != len(names):
            wanted = LAYOUT if len(names) == 2 else f"as many as in its header, {len(names)},"
            raise SlmcError(f"{path}: line {line} has {len(cells)} columns; {wanted} are needed")
    return tuple(Record(f"line {line}", dict(zip(names, map(str.strip, cells), strict=True))) for line, cells in rows)


def _tabs(path: Path, text: str) -> list[Row]:
    """GLUE writes quotation marks as they are, pandas doubles them and puts more around; the file itself tells which.

    If only one of the readings gives rows of one length, it is that. If both do, quotation marks are pandas' where they
    stand around a whole column, or are doubled inside a cell.
    """
    try:
        plain = _read(text, "\t", quoted=False)
    except csv.Error as error:
        raise SlmcError(f"{path}: no table with tabs ({error}); mend it") from error
    if not any(cell.startswith('"') for _, cells in plain for cell in cells):
        return plain
    try:
        quoted = _read(text, "\t", quoted=True)
    except csv.Error:
        return plain
    if _even(plain) != _even(quoted):
        return quoted if _even(quoted) else plain
    if len(plain) != len(quoted):  # reading marks as quotes would swallow good rows
        return plain
    columns = list(zip(*(cells for _, cells in plain), strict=False))
    whole = any(len(column) > 1 and all(map(_in_marks, column)) for column in columns)
    doubled = any(_in_marks(cell) and '""' in cell[1:-1] for _, cells in plain for cell in cells)
    return quoted if whole or doubled else plain


def _commas(path: Path, text: str, known: set[str]) -> list[Row]:
    """The rows by the one separator by which the header has a column that is known."""
    headers = {separator: _header(text, separator) for separator in (",", ";", "\t")}
    able = [separator for separator, header in headers.items() if known & set(header)]
    several = [separator for separator in able if len(headers[separator]) > 1] or able[:1]
    if len(several) != 1:
        names = " or ".join(map(repr, sorted(known)))
        raise SlmcError(
            f"{path}: its first line is no header with a column {names}, which a table with commas needs; add one, or "
            "name the column of the texts with --text-field"
        )
    try:
        return _read(text, several[0], quoted=True)
    except csv.Error as error:
        raise SlmcError(
            f"{path}: no table with quotation marks as spreadsheets write them ({error}); mend it, or save it again"
        ) from error


def _header(text: str, separator: str) -> list[str]:
    first = next((line for line in text.split("\n") if line.strip()), "")
    try:
        return [cell.strip().lower() for cell in next(csv.reader([first], delimiter=separator, strict=True), [])]
    except csv.Error:
        return []


def _read(text: str, separator: str, *, quoted: bool) -> list[Row]:
    """All rows but empty ones; only '\\n' ends a line, whatever else Unicode knows."""
    lines, how = io.StringIO(text, newline=""), csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    reader = csv.reader(lines, delimiter=separator, quoting=how, strict=True)  # type: ignore[arg-type]
    rows, line = [], 1
    try:
        for cells in reader:
            if cells and (len(cells) > 1 or cells[0].strip()):
                rows.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise csv.Error(f"line {line}: {error}") from error
    return rows


def _even(rows: Sequence[Row]) -> bool:
    return len({len(cells) for _, cells in rows}) == 1


def _in_marks(cell: str) -> bool:
    return len(cell) > 1 and cell.startswith('"') and cell.endswith('"')
