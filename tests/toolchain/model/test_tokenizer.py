"""Tokenizers beside the rows of a model: rows without a token, tokens without a row, files that are none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from exporters.artifact.errors import SlmcError
from toolchain.model.tokenizer import UNUSED_ROWS, read_tokenizer

Writer = Callable[[Path, int], Path]


def added(source: Path, target: Path, *tokens: str) -> Path:
    """A tokenizer's file with more special tokens, behind all others."""
    tokenizer = Tokenizer.from_file(str(source))
    tokenizer.add_special_tokens(list(tokens))
    tokenizer.save(str(target))
    return target


def test_added_tokens_count_into_the_vocabulary(tmp_path: Path, tokenizer_path: Path) -> None:
    path = added(tokenizer_path, tmp_path / "added.json", "<|endoftext|>")
    read = read_tokenizer(path, 10)
    assert read.tokenizer.token_to_id("<|endoftext|>") == 9
    assert read.left_out == read.notes == ()


def test_a_token_without_a_row_is_refused_with_what_helps(tmp_path: Path, tokenizer_path: Path) -> None:
    path = added(tokenizer_path, tmp_path / "added.json", "<|im_start|>", "<|im_end|>")
    with pytest.raises(SlmcError) as caught:
        read_tokenizer(path, 9)
    said = str(caught.value)
    assert "the tokenizer has 11 entries, the model's vocabulary 9: no row for <|im_start|>, <|im_end|>; " in said
    assert "resize_token_embeddings" in said and "--tokenizer FILE" in said


@pytest.mark.parametrize("token", ["<pad>", "[PAD]", "<|pad|>", "PAD"])
def test_padding_without_a_row_is_left_out_and_said(tmp_path: Path, tokenizer_path: Path, token: str) -> None:
    read = read_tokenizer(added(tokenizer_path, tmp_path / "added.json", token), 9)
    assert read.left_out == (token,)
    assert read.notes == (
        f"tokenizer.json: the model has no row for {token}, which only fills up batches; it is left out",
    )
    assert read.tokenizer.get_vocab_size() == 9
    assert max(read.tokenizer.encode(f"w1 {token} w8").ids) == 8


def test_what_the_file_itself_calls_padding_is_left_out(tmp_path: Path, tokenizer_path: Path) -> None:
    path = added(tokenizer_path, tmp_path / "added.json", "<unused0>")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_padding(pad_id=9, pad_token="<unused0>")
    tokenizer.save(str(path))
    assert read_tokenizer(path, 9).left_out == ("<unused0>",)


def test_padding_that_a_template_writes_needs_its_row(tmp_path: Path, tokenizer_path: Path) -> None:
    path = added(tokenizer_path, tmp_path / "added.json", "<pad>")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.post_processor = TemplateProcessing("<pad> $A", special_tokens=[("<pad>", 9)])
    tokenizer.save(str(path))
    with pytest.raises(SlmcError, match="no row for <pad>"):
        read_tokenizer(path, 9)


@pytest.mark.parametrize("raw", [b"", b"{}", b"not json", b"\xff\xfe", json.dumps({"model": {"type": "X"}}).encode()])
def test_a_file_that_is_no_tokenizer(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "odd.json").write_bytes(raw)
    with pytest.raises(SlmcError, match=r"odd\.json: not a tokenizer\.json of the tokenizers library \("):
        read_tokenizer(tmp_path / "odd.json", 9)


def test_a_pointer_of_git_lfs_says_what_to_run(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7\n")
    with pytest.raises(SlmcError, match="a pointer of Git LFS, not the file itself; run 'git lfs pull'"):
        read_tokenizer(tmp_path / "t.json", 9)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(SlmcError, match="no such tokenizer file; give one with --tokenizer"):
        read_tokenizer(tmp_path / "t.json", 9)


@pytest.mark.parametrize("entries", [9, 8, 5])
def test_rows_may_be_without_a_token(tmp_path: Path, write_tokenizer: Writer, entries: int) -> None:
    assert read_tokenizer(write_tokenizer(tmp_path / "t.json", entries), 9).tokenizer.get_vocab_size() == entries


def test_a_tokenizer_of_a_far_smaller_model_is_refused(tmp_path: Path, write_tokenizer: Writer) -> None:
    path = write_tokenizer(tmp_path / "t.json", 2000)
    assert read_tokenizer(path, 2000 + UNUSED_ROWS).left_out == ()
    with pytest.raises(SlmcError, match="has 2000 entries, the model's vocabulary 3025: 1025 rows without a token"):
        read_tokenizer(path, 2001 + UNUSED_ROWS)
    with pytest.raises(SlmcError, match="7 entries, the model's vocabulary 15: 8 rows without a token, where 7 at"):
        read_tokenizer(write_tokenizer(path, 7), 15)
