"""What users name is opened only if it is a regular file of bounded size; documents have bounded depths and numbers."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporters.artifact.errors import SlmcError
from exporters.artifact.opening import DOCUMENT_DEPTH, bounded, file_size, open_file, read_bytes, read_json, read_text

READERS: tuple[Callable[[Path, str], Any], ...] = (file_size, open_file, read_bytes, read_text, read_json)


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as s:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's address is short
        s.bind(path.name)
        os.chdir(here)


KINDS: tuple[tuple[Callable[[Path], None], str], ...] = (
    (_fifo, "a FIFO"), (_zero, "a device"), (_socket, "a socket"), (Path.mkdir, "a folder"),
    (lambda p: p.symlink_to("nowhere"), "No such file"), (lambda p: p.symlink_to(p.name), "symbolic links"),
    (lambda p: None, "No such file"),
)  # fmt: skip


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(("make", "said"), KINDS)
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, read: Any, make: Any, said: str) -> None:
    make(tmp_path / "x")
    with pytest.raises(SlmcError, match=said) as refused:
        read(tmp_path / "x", "give a file")
    assert str(refused.value).endswith("; give a file")


@pytest.mark.parametrize("name", ["a\0b", "a" * 300])
def test_a_name_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(SlmcError, match="cannot be read"):
        read_text(tmp_path / name, "give a file")


def test_a_file_is_read_up_to_its_limit_and_not_beyond(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("x")
    assert read_bytes(tmp_path / "link", "", 5) == b"12345"
    with pytest.raises(SlmcError, match="5 bytes, at most 4"):
        read_bytes(tmp_path / "x", "", 4)
    with pytest.raises(SlmcError, match="at most"):  # said to be empty, and is not
        read_bytes(Path("/proc/self/status"), "", 4)


def test_texts_lose_their_mark_and_other_encodings_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbf{}")
    assert read_json(tmp_path / "x", "") == {}
    (tmp_path / "x").write_bytes("{}".encode("utf-16"))
    with pytest.raises(SlmcError, match="not UTF-8"):
        read_json(tmp_path / "x", "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 5000, "not JSON"),
        ("[" * 100_000 + "]" * 100_000, "not JSON"),
        ("[" * 200 + "]" * 200, "32 levels"),
        ('{"a":' * 200 + "1" + "}" * 200, "32 levels"),
        ("1" + "0" * 400, "bits"),
        ("1" * 10_000, "not JSON"),
        ("[-9223372036854775809]", "64 bits"),
        ('{"a": {"18446744073709551616": 18446744073709551616}}', "65 bits"),
        (r'{"a": "\ud800"}', "lone surrogate"),
        (r'{"\ud800": 1}', "lone surrogate"),
        ("{", "not JSON"),
        ("", "not JSON"),
    ],
)
def test_documents_have_bounded_depths_and_numbers(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "x").write_text(text)
    with pytest.raises(SlmcError, match=said) as refused:
        read_json(tmp_path / "x", "copy it again")
    assert len(str(refused.value)) < 600 and "\n" not in str(refused.value)


def test_the_edges_are_allowed() -> None:
    nested: Any = 1
    for _ in range(DOCUMENT_DEPTH):
        nested = [nested]
    edges = [nested, -(2**63), 2**64 - 1, True, None, 1e308, float("inf"), "é\U0001f600"]
    assert bounded(edges[1:], "x", "") == edges[1:]
    assert bounded(nested, "x", "") is nested
    assert json.dumps(bounded({"a": {"b": ()}}, "x", "")) == '{"a": {"b": []}}'


def test_a_document_whose_parts_are_shared_is_counted_as_if_written_out() -> None:
    bomb: Any = ["x"] * 10
    for _ in range(9):
        bomb = [bomb] * 10
    with pytest.raises(SlmcError, match="4000000 values"):
        bounded(bomb, "x", "write it out")
