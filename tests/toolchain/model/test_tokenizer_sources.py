"""Tokenizers of other kinds as tokenizer.json: the same tokens as the libraries and loops that they come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from exporters.artifact.errors import SlmcError
from toolchain.files.shipped import SHIPPED_TEXTS
from toolchain.model.bpe import byte_level_alphabet
from toolchain.model.tokenizer_sources import tokenizer_json

TEXT = (SHIPPED_TEXTS / "calibration.txt").read_text(encoding="utf-8")
OTHER = (SHIPPED_TEXTS / "evaluation.txt").read_text(encoding="utf-8")[:20_000]
ODD = ["", "  two  blanks ", "日本語 😀 naïve café", "\ttabs\t", "a" * 50, "x  y   z 1234", " lead"]
LINES = [*OTHER.split("\n"), *ODD]


def made(path: Path) -> Tokenizer:
    document = tokenizer_json(path)
    assert document is not None
    return Tokenizer.from_str(document.decode())


def test_vocabulary_and_merges(tmp_path: Path) -> None:
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    assert sorted(byte_level_alphabet()) == sorted(alphabet)
    trainer: Any = trainers.BpeTrainer(vocab_size=700, special_tokens=["<|end|>"], initial_alphabet=alphabet)
    trained.train_from_iterator([TEXT], trainer)
    trained.model.save(str(tmp_path))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>"}))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<x>": 700}))
    ours = made(tmp_path / "tokenizer.json")
    for line in LINES:
        assert ours.encode(line).ids == trained.encode(line).ids
        assert ours.decode(ours.encode(line).ids) == line
    assert ours.encode("a<|end|>b<x>").ids == [*ours.encode("a").ids, 0, *ours.encode("b").ids, 700]
    assert (ours.decode([0]), ours.decode([700])) == ("", "<x>")


KINDS: list[dict[str, Any]] = [
    {"model_type": "bpe"},
    {"model_type": "unigram"},
    {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity",
     "remove_extra_whitespaces": False},
    {"model_type": "unigram", "byte_fallback": True, "add_dummy_prefix": False, "remove_extra_whitespaces": False,
     "user_defined_symbols": ["<x>"]},
]  # fmt: skip


@pytest.mark.parametrize("how", KINDS, ids=[f"{how['model_type']} {len(how)}" for how in KINDS])
def test_sentencepiece(tmp_path: Path, how: dict[str, Any]) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    (tmp_path / "text").write_text(TEXT[:60_000], encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"), model_prefix=str(tmp_path / "tokenizer"), vocab_size=600, minloglevel=2, **how
    )
    theirs = sentencepiece.SentencePieceProcessor(str(tmp_path / "tokenizer.model"))
    ours = made(tmp_path / "tokenizer.json")
    for line in LINES:
        expected = theirs.encode(line)
        assert ours.encode(line).ids == expected
        if theirs.unk_id() not in expected:
            assert ours.decode(expected) == theirs.decode(expected)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))
    assert made(tmp_path / "tokenizer.model").encode("a").ids == [theirs.bos_id(), *theirs.encode("a")]


def longest(strings: dict[bytes, int], data: bytes) -> list[int]:
    """RWKV's World tokenizer: of all strings the longest that goes on, byte by byte."""
    found, at = [], 0
    while at < len(data):
        size = max(n for n in range(1, 20) if data[at : at + n] in strings)
        found.append(strings[data[at : at + size]])
        at += size
    return found


def test_world_vocabulary(tmp_path: Path) -> None:
    words = ["the", " the", "tion", "\n\n", "é", "日本", "quo'te", 'dou"ble', "  ", "house"]
    strings = {bytes([i]): i + 1 for i in range(256)}
    lines = [f"{i + 1} {bytes([i])!r} 1" if i > 127 else f"{i + 1} {chr(i)!r} 1" for i in range(256)]
    for word in [*words, "日本".encode()[:4]]:
        raw = word if isinstance(word, bytes) else word.encode()
        strings[raw] = len(strings) + 1
        lines.append(f"{strings[raw]} {word!r} {len(raw)}")
    (tmp_path / "rwkv_vocab_v20230424.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    ours = made(tmp_path / "tokenizer.json")
    for line in [*LINES, " ".join(words), "日本日", "the\n\nthe house"]:
        assert ours.encode(line).ids == longest(strings, line.encode())
        assert ours.decode(ours.encode(line).ids) == line


def test_characters(tmp_path: Path) -> None:
    """As SpikeGPT's trainer writes them: numbers to characters, in UTF-16; '\\ue083' is for all others."""
    characters = sorted(set("Hello, world\n é\ue083"))
    content = json.dumps(dict(enumerate(characters)), ensure_ascii=False)
    (tmp_path / "vocab.json").write_bytes(content.encode("utf-16"))
    ours = made(tmp_path / "tokenizer.json")
    assert ours.encode("Hello\n wé!").ids == [characters.index(c) for c in "Hello\n wé\ue083"]
    assert ours.decode(ours.encode("low world\n").ids) == "low world\n"


REFUSED: list[tuple[str, bytes, str]] = [
    ("tokenizer.model", b"IQ== 0\nIg== 1\n", "no SentencePiece model of kind BPE or Unigram"),
    ("tokenizer.model", b"\x0a\x05\x0a\x01a", "no SentencePiece model of kind BPE or Unigram"),
    ("vocab.json", b'{"0": "ab"}', "every entry must be one character of its own"),
    ("vocab.json", b"[1]", "no vocabulary of characters by their numbers"),
    ("rwkv_vocab_x.txt", b"1 'a' 2\n", "line 1 is no number, literal and length"),
    ("rwkv_vocab_x.txt", b"1 open('x') 2\n", "line 1 is no number, literal and length"),
]


@pytest.mark.parametrize(("name", "raw", "said"), REFUSED)
def test_what_is_damaged_is_refused(tmp_path: Path, name: str, raw: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(SlmcError, match=f"{name}: .*{said}|{name}: {said}"):
        tokenizer_json(tmp_path / name)


def test_a_tokenizer_json_stays_as_it_is(tmp_path: Path) -> None:
    assert tokenizer_json(tmp_path / "tokenizer.json") is None
    for name in ("tokenizer.json", "vocab.json"):
        (tmp_path / name).write_text("{}")
    assert tokenizer_json(tmp_path / "tokenizer.json") is None
