"""Tokenizers and texts that fit, and all that do not."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from exporters.artifact.errors import SlmcError
from toolchain.model.text import SHORTEST_TOKENS, Text, read_text
from toolchain.model.tokenizer import read_tokenizer


@pytest.fixture
def words(tokenizer_path: Path) -> Tokenizer:
    return read_tokenizer(tokenizer_path, 9).tokenizer


def test_a_text_becomes_its_tokens(tmp_path: Path, words: Tokenizer) -> None:
    raw = "w1 w2\nw8 Größe ".encode() * 50
    (tmp_path / "text.txt").write_bytes(raw)
    text = read_text(tmp_path / "text.txt", words)
    assert text.ids.tolist() == [1, 2, 8, 0] * 50
    assert text.ids.dtype == torch.int64
    assert text.name == "text.txt"
    assert text.n_bytes == len(raw) == 17 * 50
    assert text.sha256 == hashlib.sha256(raw).hexdigest()


def test_head_takes_tokens_and_bytes_in_proportion() -> None:
    text = Text("t", torch.arange(200), 900, "ab")
    head = text.head(50)
    assert head.ids.tolist() == list(range(50))
    assert (head.n_bytes, head.sha256, head.name) == (225, "ab", "t")
    assert text.head(200) is text
    assert text.head(10**9) is text


@pytest.mark.parametrize(
    ("raw", "words_of_the_error"),
    [
        (b"", "the text is empty"),
        (b" \n\t " * 100, "the text is empty"),
        (b"w1 w2\x00" * 100, "a binary file, or UTF-16 without its byte order mark (it holds NUL bytes)"),
        (b"w1 " * 10 + b"\xe9t\xe9 " * 300, "not UTF-8 text (byte 30)"),
        (b"\x7fELF\x02\x01\x01\x00\xff", "a program"),
        (b"w1 " * (SHORTEST_TOKENS - 1), f"127 tokens are too few to judge a model; give at least {SHORTEST_TOKENS}"),
    ],
    ids=["empty", "whitespace", "nul", "latin-1", "elf", "short"],
)
def test_texts_that_are_refused(tmp_path: Path, words: Tokenizer, raw: bytes, words_of_the_error: str) -> None:
    (tmp_path / "bad.txt").write_bytes(raw)
    with pytest.raises(SlmcError) as caught:
        read_text(tmp_path / "bad.txt", words)
    assert str(caught.value).startswith(str(tmp_path / "bad.txt"))
    assert words_of_the_error in str(caught.value)


def test_the_shortest_text_is_long_enough(tmp_path: Path, words: Tokenizer) -> None:
    (tmp_path / "t.txt").write_bytes(b"w1 " * SHORTEST_TOKENS)
    assert len(read_text(tmp_path / "t.txt", words).ids) == SHORTEST_TOKENS


@pytest.mark.parametrize("name", ["missing.txt", "."])
def test_a_text_that_is_not_there_or_a_directory(tmp_path: Path, words: Tokenizer, name: str) -> None:
    with pytest.raises(SlmcError, match=r"no such text file|a folder, and a regular file"):
        read_text(tmp_path / name, words)


def test_a_tokenizer_that_truncates_and_pads_is_kept_from_both(tmp_path: Path, tokenizer_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tokenizer_path))
    tokenizer.enable_truncation(max_length=5)
    tokenizer.enable_padding(length=4096)
    tokenizer.save(str(tmp_path / "cutting.json"))
    (tmp_path / "text.txt").write_bytes(b"w1 w2 " * 300)
    text = read_text(tmp_path / "text.txt", read_tokenizer(tmp_path / "cutting.json", 9).tokenizer)
    assert text.ids.tolist() == [1, 2] * 300
