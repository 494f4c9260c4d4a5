"""Tokenizers that are no tokenizer.json, made into one: vocab.json with merges.txt, SentencePiece's tokenizer.model,
RWKV's World vocabulary, and the characters of a vocab.json."""

from __future__ import annotations

import ast
import json
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from exporters.artifact.errors import SlmcError
from exporters.artifact.opening import MIB, read_bytes, read_json
from toolchain.model.bpe import (
    QWEN2,
    Pieces,
    byte_level_alphabet,
    byte_level_document,
    characters_document,
    longest_match_document,
    sentencepiece_document,
)

BYTES = 256 * MIB
UNKNOWN_CHARACTER = "\ue083"
"""What RWKV's and SpikeGPT's trainers put in the place of a character that the vocabulary does not have."""

_ADVICE = "copy it again, or give a tokenizer.json with --tokenizer FILE"
_WORLD = re.compile(r"([0-9]+) (.+) ([0-9]+)")


def tokenizer_json(path: Path) -> bytes | None:
    """The tokenizer.json that a tokenizer file of another kind stands for; None of a tokenizer.json itself.

    Args:
        path: the file, or the tokenizer.json that is not there: then the others in its folder are looked for.

    Raises:
        SlmcError: a file is damaged, or of a kind that is not read.
    """
    file = path if path.exists() or path.name != "tokenizer.json" else _beside(path.parent)
    if file is None or not file.is_file():
        return None
    for fits, made in _KINDS:
        if fits(file):
            return made(file)
    return None


def _beside(folder: Path) -> Path | None:
    names = ("tokenizer.model", "vocab.json", "rwkv_vocab_v20230424.txt")
    found = [folder / name for name in names if (folder / name).is_file()]
    worlds = sorted(folder.glob("rwkv_vocab*.txt"))
    return next(iter([*found, *worlds]), None)


def _byte_level(path: Path) -> bytes:
    """vocab.json and merges.txt beside it (GPT-2)."""
    vocabulary = _vocabulary(path)
    raw = read_bytes(path.parent / "merges.txt", _ADVICE, BYTES).decode("utf-8", errors="replace")
    lines = [line for line in raw.split("\n") if line.strip() and not line.startswith("#version")]
    merges = [line.rstrip("\r").split(" ") for line in lines]
    if any(len(merge) != 2 for merge in merges):
        raise SlmcError(f"{path.parent / 'merges.txt'}: every line is two pieces with a blank between; {_ADVICE}")
    known = [m for m in merges if {m[0], m[1], m[0] + m[1]} <= vocabulary.keys()]
    config = _object(path.parent / "tokenizer_config.json")
    qwen = str(config.get("tokenizer_class", "")).startswith("Qwen2")
    return byte_level_document(vocabulary, known, _added(path.parent, vocabulary, config), QWEN2 if qwen else (),
                               normalizer="NFC" if qwen else None)  # fmt: skip


def _added(folder: Path, vocabulary: Mapping[str, int], config: Mapping[str, Any]) -> list[tuple[int, str, bool]]:
    """Tokens outside the merges: added_tokens.json, those of tokenizer_config.json, the special ones."""
    found: dict[int, tuple[str, bool]] = {}
    for text, number in _object(folder / "added_tokens.json").items():
        if isinstance(number, int):
            found[number] = (text, False)
    decoder = config.get("added_tokens_decoder")
    for number, token in (decoder if isinstance(decoder, dict) else {}).items():
        if number.isdecimal() and isinstance(token, dict) and isinstance(token.get("content"), str):
            found[int(number)] = (token["content"], bool(token.get("special", True)))
    special = _object(folder / "special_tokens_map.json") | {k: v for k, v in config.items() if k.endswith("_token")}
    numbers = dict(vocabulary) | {text: number for number, (text, _) in found.items()}
    for named in special.values():
        content = named.get("content") if isinstance(named, dict) else named
        if isinstance(content, str) and content in numbers:
            found[numbers[content]] = (content, True)
    return [(number, *found[number]) for number in sorted(found)]


def _characters(path: Path) -> bytes:
    """A vocab.json of characters by number, as SpikeGPT's and RWKV's trainers write it in UTF-16."""
    raw = read_bytes(path, _ADVICE, BYTES)
    wide = raw.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        content = json.loads(raw.decode("utf-16" if wide else "utf-8-sig"))
        vocabulary = {text: int(number) for number, text in content.items()}
    except (ValueError, AttributeError) as error:
        raise SlmcError(f"{path}: no vocabulary of characters by their numbers; {_ADVICE}") from error
    if not vocabulary or any(len(text) != 1 for text in vocabulary) or len(vocabulary) != len(content):
        raise SlmcError(f"{path}: every entry must be one character of its own; {_ADVICE}")
    unknown = next((c for c in (UNKNOWN_CHARACTER, " ", *vocabulary) if c in vocabulary), "")
    return characters_document(vocabulary, unknown)


def _world(path: Path) -> bytes:
    """Lines of a number, a Python literal of text or bytes, and its length in bytes."""
    spell, vocabulary = byte_level_alphabet(), {}
    for number, line in enumerate(read_bytes(path, _ADVICE, BYTES).decode("utf-8", "replace").splitlines(), 1):
        found = _WORLD.fullmatch(line)
        try:
            value = ast.literal_eval(found[2]) if found else None
        except (ValueError, SyntaxError):
            value = None
        string = value.encode() if isinstance(value, str) else value
        if not isinstance(string, bytes) or found is None or len(string) != int(found[3]):
            raise SlmcError(f"{path}: line {number} is no number, literal and length; {_ADVICE}")
        vocabulary["".join(spell[b] for b in string)] = int(found[1])
    return longest_match_document(vocabulary)


def _sentencepiece(path: Path) -> bytes:
    """A SentencePiece model: the protobuf message ModelProto of sentencepiece_model.proto."""
    raw = read_bytes(path, _ADVICE, BYTES)
    try:
        given = _pieces(raw)
    except (ValueError, IndexError, struct.error, UnicodeDecodeError) as error:
        raise SlmcError(f"{path}: no SentencePiece model of kind BPE or Unigram ({error}); {_ADVICE}") from error
    config = _object(path.parent / "tokenizer_config.json")
    begins = config.get("add_bos_token", str(config.get("tokenizer_class", "")).startswith(("Llama", "Gemma")))
    return sentencepiece_document(given, begin=bool(begins))


def _pieces(raw: bytes) -> Pieces:
    pieces: list[str] = []
    scores: list[float] = []
    kinds: list[int] = []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    for number, value in _fields(raw):
        if number == 1:
            piece = dict(_fields(value))
            pieces.append(piece[1].decode("utf-8"))
            scores.append(struct.unpack("<f", piece[2])[0] if 2 in piece else 0.0)
            kinds.append(piece.get(3, 1))
        elif number == 2:
            trainer = dict(_fields(value))
        elif number == 3:
            normalizer = dict(_fields(value))
    kinds_read: dict[int, Literal["bpe", "unigram"]] = {1: "unigram", 2: "bpe"}
    kind = kinds_read.get(trainer.get(3, 1))
    if kind is None or not pieces:
        raise ValueError(f"model_type {trainer.get(3, 1)}, {len(pieces)} pieces")
    return Pieces(
        kind=kind, pieces=pieces, scores=scores, kinds=kinds, prefix=bool(normalizer.get(3, 1)),
        single_spaces=bool(normalizer.get(4, 1)), normalizer=normalizer.get(2, b""),
    )  # fmt: skip


def _fields(raw: bytes) -> Iterator[tuple[int, Any]]:
    """Fields of a protobuf message: numbers, and values as whole numbers or bytes."""
    at = 0
    while at < len(raw):
        key, at = _varint(raw, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(raw, at)
            yield number, value
            continue
        size = {1: 8, 5: 4}.get(wire)
        if wire == 2:
            size, at = _varint(raw, at)
        if size is None or at + size > len(raw):
            raise ValueError("it ends within a field")
        yield number, raw[at : at + size]
        at += size


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = raw[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
    raise ValueError("a number without an end")


def _vocabulary(path: Path) -> dict[str, int]:
    content = _object(path)
    if not content or not all(isinstance(number, int) for number in content.values()):
        raise SlmcError(f"{path}: expected tokens and their numbers; {_ADVICE}")
    return content


def _object(path: Path) -> dict[str, Any]:
    content = read_json(path, _ADVICE) if path.is_file() else {}
    return content if isinstance(content, dict) else {}


_KINDS: tuple[tuple[Callable[[Path], bool], Callable[[Path], bytes]], ...] = (
    (lambda file: file.name.endswith(".model"), _sentencepiece),
    (lambda file: file.name == "vocab.json" and (file.parent / "merges.txt").is_file(), _byte_level),
    (lambda file: file.name == "vocab.json", _characters),
    (lambda file: file.suffix == ".txt", _world),
)
"""How a file is known, and what reads it."""
