"""The same text in other clothes is the same text; what cannot be read says so and what to do."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from exporters.artifact.errors import NotAvailable, SlmcError
from toolchain.model import text_files
from toolchain.model.records import texts_of
from toolchain.model.text import read_text
from toolchain.model.text_files import read_content
from toolchain.model.tokenizer import read_tokenizer

LINES = [f"w{i % 9} Größe w{i % 7} \u2028 w1\x0b\x0c\x1c\x85 w2" for i in range(60)]
PLAIN = "".join(line + "\n" for line in LINES)
RAW = PLAIN.encode()


def json_lines(field: str = "text", end: str = "\n", **kept: Any) -> bytes:
    return "".join(json.dumps({"id": i, field: x}, **kept) + end for i, x in enumerate(LINES)).encode()


ARRAY = [{"text": line, "meta": {"deep": [1, None]}} for line in LINES]
CLOTHES: dict[str, tuple[str, bytes]] = {
    "plain": ("x.txt", RAW),
    "byte order mark": ("x.txt", b"\xef\xbb\xbf" + RAW),
    "two byte order marks": ("x.txt", b"\xef\xbb\xbf\xef\xbb\xbf" + RAW),
    "CRLF": ("x.txt", PLAIN.replace("\n", "\r\n").encode()),
    "CRLF with a mark": ("x.txt", ("\ufeff" + PLAIN.replace("\n", "\r\n")).encode()),
    "some CRLF": ("x.txt", PLAIN.replace("\n", "\r\n", 7).encode()),
    "UTF-16": ("x.txt", PLAIN.encode("utf-16")),
    "UTF-16, big end first": ("x.txt", b"\xfe\xff" + PLAIN.encode("utf-16-be")),
    "UTF-16 with CRLF": ("x.txt", PLAIN.replace("\n", "\r\n").encode("utf-16")),
    "UTF-32": ("x.txt", PLAIN.encode("utf-32")),
    "UTF-32, big end first": ("x.txt", b"\0\0\xfe\xff" + PLAIN.encode("utf-32-be")),
    "gzip": ("x.txt.gz", gzip.compress(RAW)),
    "gzip by another name": ("x.txt", gzip.compress(RAW)),
    "gzip of UTF-16": ("x.gz", gzip.compress(PLAIN.encode("utf-16"))),
    "bzip2": ("x.bz2", bz2.compress(RAW)),
    "xz": ("x.xz", lzma.compress(RAW)),
    "JSON Lines": ("x.jsonl", json_lines()),
    "JSON Lines as written": ("x.ndjson", json_lines(ensure_ascii=False)),
    "JSON Lines by content": ("x.txt", json_lines()),
    "JSON Lines with CRLF": ("x.jsonl", json_lines(end="\r\n")),
    "JSON Lines with empty lines": ("x", b"\n" + json_lines(end="\n\n")),
    "JSON Lines with a mark": ("x.jsonl", b"\xef\xbb\xbf" + json_lines()),
    "JSON Lines, packed": ("x.JSONL.gz", gzip.compress(json_lines())),
    "one object": ("x.txt", json.dumps({"text": PLAIN}).encode()),
    "an object over many lines": ("x.json", json.dumps({"text": PLAIN, "n": 1}, indent=1).encode()),
    "an array": ("x.json", json.dumps(ARRAY).encode()),
    "an array over many lines, by content": ("x.txt", json.dumps(ARRAY, indent=2).encode()),
    "an array of texts": ("x.txt", json.dumps(LINES).encode()),
    "texts that end their lines": ("x.jsonl", "".join(json.dumps({"text": x + "\r\n"}) + "\n" for x in LINES).encode()),
    "empty texts between": (
        "x.json",
        json.dumps([x for line in LINES for x in ({"text": line}, {"text": ""})]).encode(),
    ),
}


@pytest.fixture
def words(tokenizer_path: Path) -> Tokenizer:
    return read_tokenizer(tokenizer_path, 9).tokenizer


@pytest.mark.parametrize("clothes", CLOTHES)
def test_the_same_text_in_other_clothes(tmp_path: Path, words: Tokenizer, clothes: str) -> None:
    """Its tokens, its size and its SHA-256 are those of the plain file."""
    name, raw = CLOTHES[clothes]
    (tmp_path / name).write_bytes(raw)
    found = read_text(tmp_path / name, words)
    assert found.ids.tolist() == words.encode(PLAIN).ids
    assert (found.n_bytes, found.sha256, found.name) == (len(RAW), hashlib.sha256(RAW).hexdigest(), name)


TABLES = {
    "tabs": ("x.tsv", "id\ttext\n" + "".join(f"{i}\t{x.replace(chr(9), ' ')}\n" for i, x in enumerate(LINES))),
    "commas": ("x.csv", "id,text\n" + "".join(f'{i},"{x}"\n' for i, x in enumerate(LINES))),
    "semicolons": ("x.csv", "id;text\n" + "".join(f"{i};{x}\n" for i, x in enumerate(LINES))),
    "one column": ("x.csv", "text\n" + "".join(f"{x}\n" for x in LINES)),
    "pandas with its index": ("x.csv", ",text\n" + "".join(f"{i},{x}\n" for i, x in enumerate(LINES))),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_column_of_a_table(tmp_path: Path, words: Tokenizer, kind: str) -> None:
    name, text = TABLES[kind]
    (tmp_path / name).write_text("\ufeff" + text, encoding="utf-8", newline="\r\n")
    assert read_text(tmp_path / name, words).sha256 == hashlib.sha256(RAW).hexdigest()


def test_a_field_of_another_name(tmp_path: Path, words: Tokenizer) -> None:
    (tmp_path / "x.jsonl").write_bytes(json_lines("body"))
    (tmp_path / "x.tsv").write_text("id\tbody\n" + "".join(f"0\t{x}\n" for x in LINES), encoding="utf-8")
    for name in ("x.jsonl", "x.tsv"):
        assert read_text(tmp_path / name, words, None, "body").n_bytes == len(RAW)
    (tmp_path / "x.txt").write_bytes(RAW)
    assert read_text(tmp_path / "x.txt", words, None, "body").n_bytes == len(RAW), "plain text has no fields"


PROSE = (
    '"A" said {B}\n', "[1] A footnote.\n", "{curly} words\n", "[]\n[x]\n", "[ ]( ) link\n", 'He said: {"text": "x"}\n',
    '["so", he said]\n', "123\n456\n", '"only a quotation"\n', "null\n", "true\n",
)  # fmt: skip


@pytest.mark.parametrize("text", PROSE)
def test_prose_that_looks_a_little_like_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.txt").write_text(text + "and more prose\n")
    found = read_content(tmp_path / "x.txt")
    assert found.records is None and found.text == text + "and more prose\n"


def parquet(columns: dict[str, list[Any]], **how: Any) -> bytes:
    arrow, writer = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    sink = arrow.BufferOutputStream()
    writer.write_table(arrow.table(columns), sink, **how)
    return bytes(sink.getvalue().to_pybytes())


@pytest.mark.parametrize("how", [{}, {"compression": "gzip"}, {"row_group_size": 7}, {"use_dictionary": False}])
def test_parquet(tmp_path: Path, words: Tokenizer, how: dict[str, Any]) -> None:
    raw = parquet({"id": [*range(60)], "text": LINES, "vector": [[0.5]] * 60}, **how)
    for name, content in (("x.parquet", raw), ("x.bin", raw), ("x.parquet.gz", gzip.compress(raw))):
        (tmp_path / name).write_bytes(content)
        assert read_text(tmp_path / name, words).sha256 == hashlib.sha256(RAW).hexdigest()


def test_parquet_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, raw = tmp_path / "x.parquet", parquet({"body": LINES})
    file.write_bytes(raw)
    with pytest.raises(SlmcError, match=r"row 1 has no field 'text'; its fields are 'body'; .*--text-field"):
        texts_of(file, read_content(file).records or (), None)
    file.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(SlmcError, match=r"damaged .*copy it again"):
        read_content(file)
    file.write_bytes(RAW)
    with pytest.raises(SlmcError, match="no Parquet file, although it is called so"):
        read_content(file)
    file.write_bytes(raw)
    monkeypatch.setattr(text_files, "TEXT_BYTES", len(raw) - 1)
    with pytest.raises(SlmcError, match=f"at most {len(raw) - 1} are read"):
        read_content(file)
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        NotAvailable, match="pyarrow, which reads them, is not installed; pip install pyarrow"
    ) as caught:
        read_content(file)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 5


OBJECT = b'{"text": "w1 w2"}\n'
REFUSED: dict[str, tuple[str, bytes, str]] = {
    "an old Mac's lines": ("x.txt", b"w1\nw2\rw3\r", "line 2 has a carriage return .*tr .*text.txt"),
    "a line ended twice": ("x.txt", b"w1\r\r\nw2\r\r\n", "line 1 has a carriage return"),
    "NUL": ("x.txt", b"w1 w2\0w3", r"a binary file, .*\(it holds NUL bytes\)"),
    "UTF-16 without a mark": ("x.txt", "w1 w2 w3".encode("utf-16-le"), "UTF-16 without its byte order mark.*iconv -f"),
    "UTF-16, big end first, no mark": ("x.txt", "w1 w2".encode("utf-16-be"), "UTF-16 without its byte order mark"),
    "UTF-16 cut": ("x.txt", "w1 w2".encode("utf-16")[:-1], "begins as UTF-16.* does, but byte"),
    "UTF-16, half a character": ("x.txt", b"\xff\xfe\x00\xd8w\x00", "begins as UTF-16"),
    "Latin-1": ("x.txt", "w1 Größe".encode("latin-1"), r"not UTF-8 text \(byte 5\); convert it.*iconv -f LATIN1"),
    "UTF-8 cut": ("x.txt", "w1 ö".encode()[:-1], r"not UTF-8 text \(byte 3\)"),
    "gzip cut": ("x.gz", gzip.compress(RAW)[:-9], "packed with gzip, and damaged .*copy it again"),
    "gzip altered": ("x.gz", gzip.compress(RAW)[:-6] + b"abcdef", "packed with gzip, and damaged"),
    "gzip with other bytes behind": ("x.gz", gzip.compress(RAW) + b"tail", "packed with gzip, and damaged"),
    "gzip's first bytes alone": ("x", b"\x1f\x8b", "packed with gzip, and damaged"),
    "xz cut": ("x.xz", lzma.compress(RAW)[:-9], "packed with xz, and damaged"),
    "packed twice": ("x.gz", gzip.compress(gzip.compress(RAW)), "packed twice"),
    "a Zip archive": ("x.txt", b"PK\x03\x04abc", "a Zip archive or an office document; unpack it"),
    "Zstandard": ("x.zst", b"\x28\xb5\x2f\xfdabc", "Zstandard; unpack it first"),
    "PDF": ("x.pdf", b"%PDF-1.7\n", "a PDF document; save it as plain text"),
    "Arrow": ("x.arrow", b"ARROW1\0\0", "an Arrow file; save it as Parquet"),
    "a tar archive in gzip": ("x.tgz", gzip.compress(b"a" * 90 + b"\0" * 512), "holds NUL bytes"),
    "no such field": ("x.txt", b'{"body": "w1"}\n', "entry 1 has no field 'text'; its fields are 'body'.*--text-field"),
    "no fields": ("x.txt", b"{}\n{}\n", "line 1 has no field 'text'; its fields are none"),
    "chats": ("x.jsonl", b'{"messages": []}\n' * 2, "line 1 has no field 'text'; its fields are 'messages'"),
    "a text that is a number": ("x.jsonl", OBJECT + b'{"text": 7}\n', "line 2 has a number in its field 'text'"),
    "a text that is a list": ("x.jsonl", OBJECT + b'{"text": ["w1"]}\n', "line 2 has a list in its field"),
    "a text that is null": ("x.jsonl", OBJECT + b'{"text": null}\n', "line 2 has nothing in its field"),
    "NUL in JSON": ("x.jsonl", OBJECT + rb'{"text": "w\u0000"}' + b"\n", "line 2 has in its field .*NUL"),
    "half a character": ("x.jsonl", OBJECT + rb'{"text": "w\ud83d"}' + b"\n", "line 2 .*half a character"),
    "a carriage return in JSON": ("x.jsonl", OBJECT + rb'{"text": "w\rw"}' + b"\n", "line 2 .*carriage return"),
    "a line cut off": ("x.jsonl", OBJECT + b'{"text": "w1', "line 2 is no JSON object"),
    "a line cut off, by content": ("x.txt", OBJECT * 3 + b'{"text": "w1', "line 4 is no JSON object"),
    "prose behind objects": ("x.txt", OBJECT + b"and prose\n", "by its name or its beginning, but line 2 is no JSON"),
    "prose called JSON": ("x.jsonl", b"w1 w2\n", "line 1 is no JSON object"),
    "a number called JSON": ("x.json", b"12\n", "entry 1 is a number; objects with a field 'text'"),
    "numbers in an array": ("x.json", b"[1, 2]", "entry 1 is a number"),
    "an array in lines": ("x.jsonl", b'["w1"]\n[2]\n', "line 1 is a list; objects"),
    "objects and lists": ("x.json", b'[{"text": "w1"}, ["w1"]]', "entry 2 is a list"),
    "a number of 10,000 digits": ("x.jsonl", OBJECT + b'{"n": ' + b"9" * 10_000 + b"}\n", "line 2 is no JSON object"),
    "lists without end": ("x.json", b"[" * 100_000, "line 1 is no JSON object"),
    "lists without end, by content": ("x.txt", b"[" * 100_000 + b"]" * 100_000, "line 1 is no JSON object"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_in_one_line(tmp_path: Path, words: Tokenizer, kind: str) -> None:
    name, raw, message = REFUSED[kind]
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(SlmcError, match=message) as caught:
        read_text(tmp_path / name, words)
    said = str(caught.value)
    assert said.startswith(str(tmp_path / name)) and "\n" not in said and len(said) < 600 and ";" in said


def test_more_than_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(bytes(10**6)))
    monkeypatch.setattr(text_files, "TEXT_BYTES", 10**5)
    with pytest.raises(SlmcError, match="more than 100000 bytes when unpacked"):
        read_content(tmp_path / "bomb.gz")


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir])
def test_what_is_no_regular_file(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "x.jsonl")
    with pytest.raises(SlmcError, match="a regular file is needed"):
        read_content(tmp_path / "x.jsonl")
