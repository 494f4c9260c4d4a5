"""tokenizer.json documents made of other files' entries: byte-level BPE, and SentencePiece's BPE and Unigram."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""Kinds of SentencePiece's pieces, which GGUF has too."""

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


def sentencepiece_document(given: Pieces) -> bytes:
    """The tokenizer.json of a SentencePiece vocabulary (arXiv 1808.06226)."""
    import base64

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
        decoder={"type": "Sequence", "decoders": after},
    )  # fmt: skip


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
    pre_tokenizers: Sequence[Mapping[str, Any]] = (), ignore_merges: bool = False,
) -> bytes:  # fmt: skip
    """The tokenizer.json of a byte-level BPE vocabulary (GPT-2).

    Args:
        added: number, text, whether special.
        pre_tokenizers: what divides a text before GPT-2's own pattern does; if the last one is a Split, it divides in
            the pattern's place.
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
    )  # fmt: skip


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
