"""The tokenizer of a GGUF file, from its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporters.artifact.errors import SlmcError
from toolchain.model.bpe import (
    CONTROL,
    DIGITS,
    LLAMA3,
    QWEN2,
    USER_DEFINED,
    Pieces,
    byte_level_document,
    sentencepiece_document,
)

PRE_TOKENIZERS: Mapping[str, tuple[dict[str, Any], ...]] = {
    "gpt-2": (), "gpt2": (), "phi-2": (), "olmo": (), "mpt": (), "gpt-neox": (), "roberta-bpe": (),
    "smollm": (DIGITS,), "starcoder": (DIGITS,), "refact": (DIGITS,), "command-r": (DIGITS,),
    "llama-bpe": LLAMA3, "llama3": LLAMA3, "llama-v3": LLAMA3, "smaug-bpe": LLAMA3, "dbrx": LLAMA3,
    "qwen2": QWEN2, "stablelm2": QWEN2, "deepseek-r1-qwen": QWEN2,
}  # fmt: skip
"""How a text is divided before byte-level BPE, by `tokenizer.ggml.pre`."""


def tokenizer_document(path: Path, said: Mapping[str, Any]) -> bytes | None:
    """A tokenizer.json; None if the file has no tokenizer.

    Raises:
        SlmcError: it has one of a kind that is not read.
    """
    kind = said.get("tokenizer.ggml.model")
    tokens, kinds = said.get("tokenizer.ggml.tokens"), said.get("tokenizer.ggml.token_type")
    if not tokens or kind in (None, "none", "no_vocab"):
        return None
    kinds = kinds or [1] * len(tokens)
    if kind in ("llama", "t5"):
        scores = said.get("tokenizer.ggml.scores") or [0.0] * len(tokens)
        prefix = bool(said.get("tokenizer.ggml.add_space_prefix", True))
        return sentencepiece_document(Pieces("bpe" if kind == "llama" else "unigram", tokens, scores, kinds, prefix))
    pre = said.get("tokenizer.ggml.pre", "gpt-2")
    if kind != "gpt2" or pre not in PRE_TOKENIZERS:
        raise SlmcError(
            f"{path}: its tokenizer is of kind {kind!r}, {pre!r}, which is not read; put the model's tokenizer.json "
            "beside it, or give it with --tokenizer FILE"
        )
    added = [(i, t, k == CONTROL) for i, (t, k) in enumerate(zip(tokens, kinds, strict=True))
             if k in (CONTROL, USER_DEFINED)]  # fmt: skip
    merges = [merge.split(" ") for merge in said.get("tokenizer.ggml.merges", ())]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return byte_level_document(vocabulary, merges, added, PRE_TOKENIZERS[pre], ignore_merges="llama" in pre)


def tokenizer_config(said: Mapping[str, Any]) -> dict[str, Any]:
    """What a tokenizer_config.json would say: special tokens, whether texts begin with one, the chat template."""
    tokens = said.get("tokenizer.ggml.tokens") or ()
    found: dict[str, Any] = {}
    for name in ("bos", "eos", "unknown", "padding"):
        number = said.get(f"tokenizer.ggml.{name}_token_id")
        if isinstance(number, int) and 0 <= number < len(tokens):
            found[f"{name.replace('unknown', 'unk').replace('padding', 'pad')}_token"] = tokens[number]
    begins = said.get("tokenizer.ggml.model") == "llama" or said.get("tokenizer.ggml.pre") in ("llama-bpe", "llama3")
    found["add_bos_token"] = bool(said.get("tokenizer.ggml.add_bos_token", begins))
    if template := said.get("tokenizer.chat_template"):
        found["chat_template"] = template
    return found
