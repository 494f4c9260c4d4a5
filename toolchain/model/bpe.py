"""tokenizer.json documents made of other files' entries: byte-level BPE, and SentencePiece's BPE and Unigram."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""Kinds of SentencePiece's pieces, which GGUF has too."""

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


DIGITS: dict[str, Any] = {"type": "Digits", "individual_digits": True}
LLAMA3 = (_split(_WORDS + r"|\p{N}{1,3}" + _REST),)
QWEN2 = (_split(_WORDS + r"|\p{N}" + _REST),)
"""How texts are divided before byte-level BPE, as these models' authors published it."""

SPACE = "\u2581"
"""What stands for a blank in SentencePiece's pieces."""


@dataclass(frozen=True)
class Pieces:
    """A SentencePiece vocabulary. kinds: as above. prefix: whether a text gets a blank before it.
    single_spaces: whether blanks side by side become one. normalizer: a character map of SentencePiece's, or none."""

    kind: Literal["bpe", "unigram"]
    pieces: Sequence[str]
    scores: Sequence[float]
    kinds: Sequence[int]
    prefix: bool = True
    single_spaces: bool = False
    normalizer: bytes = b""


def sentencepiece_document(given: Pieces, begin: bool = False) -> bytes:
    """The tokenizer.json of a SentencePiece vocabulary (arXiv 1808.06226).

    Args:
        begin: whether texts begin with the first control piece that is called <s> or <bos>.
    """
    unknown = next((i for i, kind in enumerate(given.kinds) if kind == UNKNOWN), None)
    bytes_there = BYTE in given.kinds
    vocabulary = {piece: i for i, piece in enumerate(given.pieces)}
    if given.kind == "unigram":
        entries = [[p, float(s)] for p, s in zip(given.pieces, given.scores, strict=True)]
        model: dict[str, Any] = {"type": "Unigram", "unk_id": unknown, "vocab": entries, "byte_fallback": bytes_there}
    else:
        scores = dict(zip(given.pieces, given.scores, strict=True))
        special = {p for p, k in zip(given.pieces, given.kinds, strict=True) if k in (UNKNOWN, CONTROL, BYTE, UNUSED)}
        model = {
            "type": "BPE", "vocab": vocabulary, "merges": merges_by_score(scores, vocabulary, special),
            "unk_token": None if unknown is None else given.pieces[unknown], "fuse_unk": True,
            "byte_fallback": bytes_there, "dropout": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "ignore_merges": False,
        }  # fmt: skip
    before: list[dict[str, Any]] = []
    if given.normalizer:
        chars = base64.b64encode(given.normalizer).decode()
        before.append({"type": "Precompiled", "precompiled_charsmap": chars})
    if given.single_spaces:
        before += [
            {"type": "Strip", "strip_left": True, "strip_right": True},
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
        ]
    before += [{"type": "Prepend", "prepend": SPACE}] if given.prefix else []
    before += [{"type": "Replace", "pattern": {"String": " "}, "content": SPACE}]
    after: list[dict[str, Any]] = [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "}]
    after += [{"type": "ByteFallback"}] if bytes_there else []
    after += [{"type": "Fuse"}]
    after += [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if given.prefix else []
    added = [(i, given.pieces[i], kind != USER_DEFINED) for i, kind in enumerate(given.kinds)
             if kind in (UNKNOWN, CONTROL, USER_DEFINED)]  # fmt: skip
    return _document(
        model, added, normalizer={"type": "Sequence", "normalizers": before},
        decoder={"type": "Sequence", "decoders": after}, post_processor=_beginning(vocabulary) if begin else None,
    )  # fmt: skip


def _beginning(vocabulary: Mapping[str, int]) -> dict[str, Any] | None:
    name = next((name for name in ("<s>", "<bos>") if name in vocabulary), None)
    if name is None:
        return None
    first, text = {"SpecialToken": {"id": name, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    second = {"Sequence": {"id": "B", "type_id": 1}}
    special = {name: {"id": name, "ids": [vocabulary[name]], "tokens": [name]}}
    return {
        "type": "TemplateProcessing", "single": [first, text], "pair": [first, text, second], "special_tokens": special
    }  # fmt: skip


def merges_by_score(
    scores: Mapping[str, float], vocabulary: Mapping[str, int], special: Iterable[str]
) -> list[list[str]]:
    """Merges in the order in which SentencePiece joins: the best score of the joined piece first, of one piece's parts
    those of the smallest numbers."""
    left_out, found = set(special), []
    for piece, score in scores.items():
        if piece in left_out:
            continue
        for at in range(1, len(piece)):
            first, second = piece[:at], piece[at:]
            if first in vocabulary and second in vocabulary and not left_out & {first, second}:
                found.append((-score, vocabulary[piece], vocabulary[first], vocabulary[second], first, second))
    return [[first, second] for *_, first, second in sorted(found)]


def byte_level_document(
    vocabulary: Mapping[str, int], merges: Sequence[Sequence[str]], added: Sequence[tuple[int, str, bool]],
    pre_tokenizers: Sequence[Mapping[str, Any]] = (), ignore_merges: bool = False, normalizer: str | None = None,
) -> bytes:  # fmt: skip
    """The tokenizer.json of a byte-level BPE vocabulary (GPT-2).

    Args:
        added: number, text, whether special.
        pre_tokenizers: what divides a text before GPT-2's own pattern does; if the last one is a Split, it divides in
            the pattern's place.
        normalizer: what a text goes through before: NFC.
    """
    own = not pre_tokenizers or pre_tokenizers[-1]["type"] != "Split"
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": own}
    model = {
        "type": "BPE", "vocab": dict(vocabulary), "merges": [list(m) for m in merges], "unk_token": None,
        "fuse_unk": False, "byte_fallback": False, "dropout": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "ignore_merges": ignore_merges,
    }  # fmt: skip
    return _document(
        model, added, pre_tokenizer={"type": "Sequence", "pretokenizers": [*pre_tokenizers, level]},
        decoder={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        normalizer={"type": normalizer} if normalizer else None,
    )  # fmt: skip


def characters_document(vocabulary: Mapping[str, int], unknown: str) -> bytes:
    """The tokenizer.json of single characters; all others are taken for `unknown`."""
    any_character = {"type": "Split", "pattern": {"Regex": "(?m:.)"}, "behavior": "Isolated", "invert": False}
    model = {"type": "WordLevel", "vocab": dict(vocabulary), "unk_token": unknown}
    return _document(model, (), pre_tokenizer=any_character, decoder={"type": "Fuse"})


def longest_match_document(vocabulary: Mapping[str, int]) -> bytes:
    """The tokenizer.json of byte strings, spelled in the byte-level alphabet, of which the longest that goes on is
    taken: that is WordPiece without a mark for what goes on."""
    model = {
        "type": "WordPiece", "vocab": dict(vocabulary), "unk_token": byte_level_alphabet()[0],
        "continuing_subword_prefix": "", "max_input_chars_per_word": 2**31 - 1,
    }  # fmt: skip
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return _document(model, (), pre_tokenizer=level, decoder=level | {"use_regex": True})


def byte_level_alphabet() -> list[str]:
    """What stands for every byte in byte-level vocabularies: itself where it can be seen, else a letter above 255."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in seen]
    return [chr(byte) if byte in seen else chr(256 + others.index(byte)) for byte in range(256)]


def _document(model: Mapping[str, Any], added: Sequence[tuple[int, str, bool]], **parts: Any) -> bytes:
    entries = [
        {
            "id": number, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            "special": special,
        }
        for number, text, special in added
    ]  # fmt: skip
    whole = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": entries, "normalizer": None,
        "pre_tokenizer": None, "post_processor": None, "decoder": None,
    } | parts  # fmt: skip
    return json.dumps(whole | {"model": model}, ensure_ascii=False).encode()
