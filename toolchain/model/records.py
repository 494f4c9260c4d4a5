"""Records with named fields, from JSON documents and JSON Lines, and the texts in them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from exporters.artifact.errors import SlmcError
from exporters.artifact.opening import is_unicode

TEXT_FIELD: Final = "text"
"""The field that holds the text where the user names none."""

LABEL_FIELD: Final = "label"
_FIELDS_NAMED: Final = 8
_UNREADABLE: Final = (ValueError, RecursionError)  # also numbers and depths that Python refuses


@dataclass(frozen=True)
class Record:
    """One entry of a file: where it stands, for messages ('line 3'), and its fields."""

    where: str
    fields: Mapping[str, Any]


def json_records(path: Path, text: str, *, named: bool) -> tuple[Record, ...] | None:
    """The objects of a JSON array or of JSON Lines; None of prose.

    A file is JSON if it is called so, if it is one JSON document as a whole, or if it begins with an object. A list of
    texts counts as objects with a field 'text'.

    Raises:
        SlmcError: JSON that holds anything else than objects or texts; the text names where.
    """
    if not (named or _begins_as_json(text)):
        return None
    try:
        whole = json.loads(text)
    except _UNREADABLE:
        return _lines(path, text)
    entries = whole if isinstance(whole, list) else [whole]
    return tuple(_record(path, f"entry {i}", entry) for i, entry in enumerate(entries, 1))


def texts_of(path: Path, records: Sequence[Record], field: str | None) -> list[str]:
    """The text of every record, from the field that the user named, or 'text'.

    Raises:
        SlmcError: one has no such field, or no text in it.
    """
    return [text_of(path, record, field or TEXT_FIELD) for record in records]


def text_of(path: Path, record: Record, field: str) -> str:
    """The text in a field of a record, its lines ended by '\\n'.

    Raises:
        SlmcError: there is no such field, or no text in it.
    """
    if field not in record.fields:
        names = ", ".join(repr(name[:40]) for name in [*record.fields][:_FIELDS_NAMED]) or "none"
        raise SlmcError(
            f"{path}: {record.where} has no field {field!r}; its fields are {names}; name that of the text with "
            "--text-field"
        )
    value = record.fields[field]
    if not isinstance(value, str):
        raise SlmcError(
            f"{path}: {record.where} has {_kind(value)} in its field {field!r}, and a text is needed; "
            "name another with --text-field, or remove it"
        )
    value = value.replace("\r\n", "\n")
    if "\0" in value or "\r" in value or not is_unicode(value):
        raise SlmcError(
            f"{path}: {record.where} has in its field {field!r} what is no text (NUL, a carriage return that ends no "
            "line of Windows', or half a character); remove it"
        )
    return value


def joined(texts: Sequence[str]) -> str:
    """Texts one after the other, each ended by a line's end."""
    return "".join(text if text.endswith("\n") else text + "\n" for text in texts if text)


def _begins_as_json(text: str) -> bool:
    start = text.lstrip()
    if not start.startswith(("{", "[")):
        return False
    try:
        value, end = json.JSONDecoder().raw_decode(start)
    except ValueError:
        return False
    except RecursionError:
        return True
    objects = isinstance(value, dict) or (bool(value) and all(isinstance(entry, dict) for entry in value))
    return objects or not start[end:].strip()


def _lines(path: Path, text: str) -> tuple[Record, ...]:
    records = []
    for number, line in enumerate(text.split("\n"), 1):  # a line separator of Unicode may stand inside a JSON text
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except _UNREADABLE as error:
            raise SlmcError(
                f"{path}: JSON by its name or its beginning, but line {number} is no JSON object "
                f"({' '.join(str(error).split())[:100]}); mend it, or give plain text that begins otherwise"
            ) from error
        records.append(_record(path, f"line {number}", entry))
    return tuple(records)


def _record(path: Path, where: str, entry: Any) -> Record:
    if isinstance(entry, str):
        return Record(where, {TEXT_FIELD: entry})
    if not isinstance(entry, dict):
        raise SlmcError(f"{path}: {where} is {_kind(entry)}; objects with a field {TEXT_FIELD!r} are needed")
    return Record(where, entry)


def _kind(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case list():
            return "a list"
        case dict():
            return "an object"
        case _:
            return "something else"
