"""Texts as they lie on disks: packed or not, in any Unicode encoding and with any line ends; prose, or records.

Whatever is not prose is never taken for it: JSON and Parquet are known by what they hold, tables by their name.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from exporters.artifact.errors import SlmcError
from exporters.artifact.opening import MIB, read_bytes
from toolchain.model.parquet import PARQUET_MAGIC, parquet_records
from toolchain.model.records import Record, json_records
from toolchain.model.tables import table_records

TEXT_BYTES: Final = 1024 * MIB
"""Largest text that is read, packed or not: every token of it is held."""

_PACKED: Final[tuple[tuple[bytes, str, Callable[..., Any]], ...]] = (
    (b"\x1f\x8b", "gzip", gzip.open), (b"BZh", "bzip2", bz2.open), (b"\xfd7zXZ\0", "xz", lzma.open),
)  # fmt: skip
_REFUSED: Final = (
    (b"PK\x03\x04", "a Zip archive or an office document", "unpack it, or save it as plain text"),
    (b"\x28\xb5\x2f\xfd", "packed with Zstandard", "unpack it first: zstd -d FILE"),
    (b"%PDF-", "a PDF document", "save it as plain text: pdftotext FILE"),
    (b"ARROW1", "an Arrow file", "save it as Parquet or JSON Lines"),
    (b"\x7fELF", "a program", "give a text"),
)
_ENCODINGS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"), (codecs.BOM_UTF8, "utf-8-sig"),
)  # fmt: skip
"""By their byte order marks; the first that fits."""

_JSON: Final = (".json", ".jsonl", ".ndjson")
_TABLES: Final = (".tsv", ".csv")
_PACKED_NAMES: Final = (".gz", ".bz2", ".xz")


@dataclass(frozen=True)
class Content:
    """A text file: the characters of prose and tables, lines ended by '\\n' alone; the records of all but prose."""

    text: str = ""
    records: tuple[Record, ...] | None = None


def read_content(path: Path, field: str | None = None) -> Content:
    """What a file holds, whatever clothes it wears.

    Args:
        field: the column of a table that holds the texts, if the user named one.

    Raises:
        SlmcError: no such file, no text, or one that cannot be read; the text names the next step.
        NotAvailable: a Parquet file, and nothing is installed that reads it.
    """
    if not path.exists():
        raise SlmcError(f"{path}: no such text file")
    raw = _unpacked(path, read_bytes(path, "give a text file", TEXT_BYTES))
    if raw.startswith(PARQUET_MAGIC):
        return Content(records=parquet_records(path, raw, TEXT_BYTES))
    suffix = _suffix(path)
    if suffix == ".parquet":
        raise SlmcError(f"{path}: no Parquet file, although it is called so; copy it again, or name it for what it is")
    text = _decoded(path, raw)
    if suffix in _TABLES:
        return Content(text, table_records(path, text, field, tabs=suffix == ".tsv"))
    records = json_records(path, text, named=suffix in _JSON)
    return Content(text) if records is None else Content(records=records)


def _suffix(path: Path) -> str:
    """The ending that says what a file holds: '.jsonl' of x.JSONL.gz."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while len(suffixes) > 1 and suffixes[-1] in _PACKED_NAMES:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _unpacked(path: Path, raw: bytes) -> bytes:
    for magic, name, opened in _PACKED:
        if not raw.startswith(magic):
            continue
        try:
            with opened(io.BytesIO(raw)) as file:
                raw = file.read(TEXT_BYTES + 1)
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise SlmcError(f"{path}: packed with {name}, and damaged ({error}); copy it again") from error
        if len(raw) > TEXT_BYTES:
            raise SlmcError(f"{path}: more than {TEXT_BYTES} bytes when unpacked; give a part of it")
        if any(raw.startswith(magic) for magic, *_ in _PACKED):
            raise SlmcError(f"{path}: packed twice; unpack it once")
        break
    for magic, what, advice in _REFUSED:
        if raw.startswith(magic):
            raise SlmcError(f"{path}: {what}; {advice}")
    return raw


def _decoded(path: Path, raw: bytes) -> str:
    """Its characters without a byte order mark, every line ended by '\\n'."""
    encoding = next((name for mark, name in _ENCODINGS if raw.startswith(mark)), "utf-8")
    try:
        text = raw.decode(encoding).lstrip("\ufeff")
    except UnicodeDecodeError as error:
        raise _undecodable(path, error, marked=encoding in ("utf-16", "utf-32")) from error
    if "\0" in text:
        raise SlmcError(
            f"{path}: a binary file, or UTF-16 without its byte order mark (it holds NUL bytes); give a text file, or "
            f"convert it: iconv -f UTF-16LE -t UTF-8 {path.name} > text.txt"
        )
    text = text.replace("\r\n", "\n")
    if "\r" in text:
        line = text.count("\n", 0, text.index("\r")) + 1
        raise SlmcError(
            f"{path}: line {line} has a carriage return that ends no line of Windows'; if it stands for a line's end, "
            f"convert it: tr '\\r' '\\n' < {path.name} > text.txt"
        )
    return text


def _undecodable(path: Path, error: UnicodeDecodeError, *, marked: bool) -> SlmcError:
    if marked:
        found = error.encoding.upper()
        return SlmcError(f"{path}: begins as {found} does, but byte {error.start} is none; copy it again")
    return SlmcError(
        f"{path}: not UTF-8 text (byte {error.start}); convert it, from Latin-1 for example: "
        f"iconv -f LATIN1 -t UTF-8 {path.name} > text.txt"
    )
