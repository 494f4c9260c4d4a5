"""Decoding, stopping, sampling and figures of a text that a scripted model writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from targets.device.continuation import ArtifactError, Continuation, Decoder, check_prompt, pick

TEXT = "Größe 日本語 😀😀 — naïve text, and then some more. " * 6
EOS = 256


def byte_level() -> Tokenizer:
    """A token per byte, as byte-level BPE spells them, in the order of the alphabet; 256 is a special token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["</s>"])
    return tokenizer


def byte_fallback() -> Tokenizer:
    """Words as Llama's tokenizer has them, all other characters as tokens of a byte."""
    words = [
        "<unk>",
        *(f"<0x{i:02X}>" for i in range(256)),
        "▁",
        "▁text",
        "▁and",
        "▁then",
        "▁naïve",
        "s",
        "o",
        "m",
        "e",
    ]
    tokenizer = Tokenizer(models.BPE({w: i for i, w in enumerate(words)}, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


class Counted:
    """A tokenizer that counts the tokens it decodes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer, self.tokens = tokenizer, 0

    def decode(self, ids: Sequence[int]) -> str:
        self.tokens += len(ids)
        text: str = self.tokenizer.decode(list(ids))
        return text


@pytest.mark.parametrize("make", [byte_level, byte_fallback])
@pytest.mark.parametrize("prompt", ["", "Größe 日", "text and"])
def test_pieces_are_the_text_as_a_whole_in_whole_characters(make: Any, prompt: str) -> None:
    tokenizer = make()
    before, after = tokenizer.encode(prompt).ids, tokenizer.encode(TEXT).ids
    decoder = Decoder(tokenizer, before)
    pieces = [decoder.add(token) for token in after]
    assert tokenizer.decode(before) + "".join(pieces) == tokenizer.decode([*before, *after])
    assert "\ufffd" not in "".join(pieces)
    assert all(len(piece) <= 6 for piece in pieces), "characters are held back too long"


@pytest.mark.parametrize("make", [byte_level, byte_fallback])
def test_the_work_grows_with_the_text_and_not_with_its_square(make: Any) -> None:
    counts = []
    for repeats in (1, 8):
        counted = Counted(make())
        ids = counted.tokenizer.encode(TEXT).ids * repeats
        decoder = Decoder(counted, ids[:1])
        for token in ids[1:]:
            decoder.add(token)
        counts.append(counted.tokens / len(ids))
    assert counts[1] <= 1.2 * counts[0] and counts[1] < 80


@pytest.mark.parametrize("token", [EOS, pytest.param(0x80, id="bytes that never are a character")])
def test_tokens_without_text_cost_no_more_than_others(token: int) -> None:
    tokenizer = byte_level()
    if token != EOS:
        token = tokenizer.token_to_id("Ģ")  # byte 0x80
    counted = Counted(tokenizer)
    decoder = Decoder(counted, [5])
    for _ in range(2000):
        decoder.add(token)
    assert counted.tokens < 2000 * 80


class Scripted:
    """A model that writes the given tokens, each with certainty."""

    def __init__(self, ids: Sequence[int], room: int | None = None, vocabulary: int = 257) -> None:
        self.ids, self.total, self.vocabulary, self.read, self.calls = list(ids), room, vocabulary, 0, 0

    @property
    def room(self) -> int | None:
        return None if self.total is None else self.total - self.read

    def _next(self) -> Any:
        logits = np.full(self.vocabulary, -50, np.float32)
        logits[self.ids[self.calls % len(self.ids)]] = 50
        self.calls += 1
        return logits

    def prefill(self, tokens: Any) -> Any:
        self.read += tokens.shape[1]
        return self._next()

    def step(self, token: int) -> Any:
        self.read += 1
        return self._next()


def test_rows_without_a_token_are_never_written() -> None:
    tokenizer = byte_level()
    for temperature in (0.0, 5.0):
        model = Scripted([290, 5], vocabulary=300)
        found = Continuation(model, tokenizer, [1], tokens=40, temperature=temperature, top_k=300, seed=1)
        seen: list[int] = []
        model.step = lambda token, seen=seen, model=model: (seen.append(token), model._next())[1]  # type: ignore
        "".join(found)
        assert len(seen) == 39 and all(token <= EOS for token in seen)


def told(
    script: str, *, tokens: int = 1000, room: int | None = None, end: Sequence[int] = (), stop: Sequence[str] = ()
) -> tuple[str, Continuation, list[str]]:
    """What is written where the model writes the script over and over; §: the special token."""
    tokenizer = byte_level()
    ids = [i for part in script.split("§") for i in (*tokenizer.encode(part).ids, EOS)][:-1]
    options = {"temperature": 0.0, "top_k": 40, "seed": 0, "end": end, "stop": stop}
    text = Continuation(Scripted(ids, room), tokenizer, [1, 2, 3], tokens=tokens, **options)  # type: ignore[arg-type]
    pieces = list(text)
    return "".join(pieces), text, pieces


CASES = {
    "an end token": (("Yes.§No.", {"end": [EOS]}), ("Yes.", "end", 4)),
    "one of two end tokens": (("Yes.§No.", {"end": [7, EOS]}), ("Yes.", "end", 4)),
    "no end token given": (("Yes.§No.", {"tokens": 8}), ("Yes.No.", "tokens", 8)),
    "an end token first": (("§No.", {"end": [EOS]}), ("", "end", 0)),
    "a stop string": (("one, two; three", {"stop": ["; "]}), ("one, two", "stop", 10)),
    "the earlier of two": (("one, two; three", {"stop": ["; ", "e,"]}), ("on", "stop", 4)),
    "a stop string that begins twice": (("aab!", {"stop": ["ab!"]}), ("a", "stop", 4)),
    "the beginning of one at the end": (("one", {"stop": ["neo!"], "tokens": 3}), ("one", "tokens", 3)),
    "the beginning of one, then not": (("ab ab", {"stop": ["abc"], "tokens": 5}), ("ab ab", "tokens", 5)),
    "a character in a stop string": (("日本語", {"stop": ["本"]}), ("日", "stop", 6)),
    "so many tokens": (("abc", {"tokens": 5}), ("abcab", "tokens", 5)),
    "no tokens": (("abc", {"tokens": 0}), ("", "tokens", 0)),
    "a full context": (("abc", {"room": 10}), ("abcabca", "context", 7)),
    "a context that is just filled": (("abc", {"room": 10, "tokens": 7}), ("abcabca", "tokens", 7)),
    "a prompt that fills it": (("abc", {"room": 3}), ("", "context", 0)),
    "half a character": (("a日", {"tokens": 3}), ("a", "tokens", 3)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_how_a_text_ends(case: str) -> None:
    (script, options), (wanted, ended, tokens) = CASES[case]
    written, text, _ = told(script, **options)  # type: ignore[arg-type]
    assert (written, text.ended, text.tokens) == (wanted, ended, tokens)


def test_text_comes_as_soon_as_it_cannot_be_a_stop_string() -> None:
    assert told("a<b<end", stop=["<end"])[2] == ["a", "<b"]


def test_the_rate_is_that_of_the_steps_and_leaves_the_prompt_out() -> None:
    _, text, _ = told("abc", tokens=5)
    assert text.steps == 4, "the first token comes from the prompt, the last one is not read"
    text.seconds, text.prompt_seconds = 2.0, 100.0
    assert text.rate == 2.0
    assert text.figures() == "prompt of 3 tokens in 100.00 s; 5 tokens written in 2.00 s, 2 tokens per second"
    _, few, _ = told("abc", tokens=1)
    assert few.rate is None and few.figures().endswith("1 tokens written in 0.00 s")


def test_a_prompt_that_does_not_fit() -> None:
    check_prompt([1] * 8, 8)
    check_prompt([1] * 8, None)
    with pytest.raises(ArtifactError, match="the prompt has 9 tokens, and the context is 8; shorten it"):
        check_prompt([1] * 9, 8)


def test_sampling() -> None:
    random = np.random.default_rng(3)
    logits = np.array([0.0, 2.0, 1.9, -1.0], np.float32)
    assert {pick(logits, 0.0, 40, random) for _ in range(20)} == {1}
    assert {pick(logits, 1e-30, 40, random) for _ in range(20)} == {1}
    assert {pick(logits, 1.0, 2, random) for _ in range(200)} == {1, 2}
    drawn = np.bincount([pick(logits, 1.0, 40, random) for _ in range(20_000)], minlength=4) / 20_000
    np.testing.assert_allclose(drawn, np.exp(logits) / np.exp(logits).sum(), atol=0.015)
    again = [[pick(logits, 0.7, 3, np.random.default_rng(seed)) for _ in range(1)] for seed in range(9)]
    assert again == [[pick(logits, 0.7, 3, np.random.default_rng(seed))] for seed in range(9)]


@pytest.mark.parametrize("worst", [np.nan, np.inf])
def test_a_model_that_overflows_is_named(worst: float) -> None:
    with pytest.raises(ArtifactError, match="no finite numbers"):
        pick(np.array([0.0, worst], np.float32), 0.7, 40, np.random.default_rng(0))
