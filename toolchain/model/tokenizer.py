"""Tokenizers: read, and compared with the rows of the model."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from exporters.artifact.errors import SlmcError
from exporters.artifact.opening import MIB, read_bytes

TOKENIZER_BYTES = 256 * MIB

UNUSED_ROWS = 1024
"""So many rows of a vocabulary may be without a token, and no more than half: sizes are rounded up to what trains
fast."""

_PADDING = re.compile(r"^\W*pad(?:ding)?\W*$", re.IGNORECASE)
"""Tokens that fill up batches, which nothing here does."""


@dataclass(frozen=True)
class ReadTokenizer:
    """A tokenizer whose ids are all rows of the model.

    raw: its file. left_out: tokens of the file that had no row and are not needed.
    """

    tokenizer: Tokenizer
    raw: bytes
    left_out: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know, a line each."""
        if not self.left_out:
            return ()
        listed = ", ".join(self.left_out)
        return (f"tokenizer.json: the model has no row for {listed}, which only fills up batches; it is left out",)


def read_tokenizer(path: Path, vocabulary: int, content: bytes | None = None) -> ReadTokenizer:
    """A tokenizer.json for a model of so many rows.

    Args:
        content: what stands in it, if it was made of something else in the file.

    Raises:
        SlmcError: no such file, not a tokenizer, or not this model's.
    """
    if content is None and not path.exists():
        raise SlmcError(f"{path}: no such tokenizer file; give one with --tokenizer FILE (a tokenizer.json)")
    advice = "give a tokenizer.json with --tokenizer FILE"
    raw = read_bytes(path, advice, TOKENIZER_BYTES) if content is None else content
    text = raw.decode("utf-8-sig", errors="replace")
    if text.startswith("version https://git-lfs"):
        raise SlmcError(f"{path}: a pointer of Git LFS, not the file itself; run 'git lfs pull' in its folder")
    tokenizer = _opened(path, text)
    beyond = sorted((i, token) for token, i in tokenizer.get_vocab(with_added_tokens=True).items() if i >= vocabulary)
    left_out = tuple(token for _, token in beyond)
    if left_out:
        if not _never_needed(json.loads(text), left_out):
            raise SlmcError(_too_many(path, vocabulary, left_out, tokenizer))
        tokenizer = _opened(path, without_tokens(text, left_out))
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    allowed = min(UNUSED_ROWS, vocabulary // 2)
    if size < vocabulary - allowed:
        raise SlmcError(
            f"{path}: the tokenizer has {size} entries, the model's vocabulary {vocabulary}: {vocabulary - size} rows "
            f"without a token, where {allowed} at most are usual; it is another's: give this model's own with "
            "--tokenizer FILE"
        )
    # A tokenizer.json may ask for both, and a text would silently lose all but its first tokens.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return ReadTokenizer(tokenizer, raw, left_out)


def without_tokens(text: str, left_out: Collection[str]) -> str:
    """A tokenizer.json without these added tokens, and without padding, which may need them."""
    content = json.loads(text)
    added = [t for t in content["added_tokens"] if t["content"] not in left_out]
    return json.dumps(content | {"added_tokens": added, "padding": None}, ensure_ascii=False)


def _opened(path: Path, text: str) -> Tokenizer:
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exception
        raise SlmcError(f"{path}: not a tokenizer.json of the tokenizers library ({error})") from error


def _never_needed(content: dict[str, Any], tokens: tuple[str, ...]) -> bool:
    """Whether tokens are added ones that fill up batches, and no template puts them into a text."""
    added = {t["content"] for t in content.get("added_tokens") or ()}
    padding = (content.get("padding") or {}).get("pad_token")
    template = json.dumps(content.get("post_processor"))
    return all(t in added and (t == padding or _PADDING.match(t)) and json.dumps(t) not in template for t in tokens)


def _too_many(path: Path, vocabulary: int, beyond: tuple[str, ...], tokenizer: Tokenizer) -> str:
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    some = ", ".join(beyond[:4])
    text = f"{path}: the tokenizer has {size} entries, the model's vocabulary {vocabulary}: no row for {some}"
    if len(beyond) > UNUSED_ROWS:
        return f"{text}, ...; it is another model's; give this model's own with --tokenizer FILE"
    return (
        f"{text}; if the tokenizer is the model's own, save the model with rows for them "
        "(model.resize_token_embeddings(len(tokenizer)) in transformers) or take them out of the file; otherwise give "
        "its own with --tokenizer FILE"
    )
