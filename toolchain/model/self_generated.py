"""Text that a model writes by itself, to calibrate, tune and evaluate with where none like its own is at hand.

What a model draws from its own predictions teaches a compressed one nearly as well as its training text does
(LLM-QAT, Liu et al., arXiv 2305.17888, section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from exporters.artifact.errors import SlmcError
from exporters.states import StateSpec
from targets.device.continuation import rows_in_use
from toolchain.files.progress import StepProgress
from toolchain.model.catalog import LoadedModel
from toolchain.model.family import LanguageModel

ROWS = 192
"""Texts that are written side by side."""

LENGTH = 512
"""Tokens of a text by a model without a context."""

GROWTH = 32
"""A cache grows by so many slots at a time, so that the beginning of a text does not carry the whole context about."""


def written(
    model: LoadedModel, tokens: int, temperature: float, seed: int,
    progress: StepProgress = lambda done, total: None, opening: int = 0,
) -> str:  # fmt: skip
    """At least so many tokens of text, drawn from softmax(logits / temperature); at 0 the best token.

    Each text begins with the tokenizer's token for that (<s> or the like), written out between texts as well, as
    trainers do; without one, with a token drawn from the whole vocabulary, and texts are lines. The first `opening`
    tokens after that are drawn at temperature 1: beginnings differ even where the rest is the best tokens.

    Raises:
        SlmcError: temperature 0, no opening and a token that begins a text: all texts would be the same.
    """
    begin: list[int] = model.tokenizer.encode("").ids[:1]
    ends = {*begin, *(model.rules.end if model.rules else ())}
    if begin and temperature == 0 and opening == 0:
        raise SlmcError("--temperature 0: every text would be the same one; give --opening 8, or a temperature of 0.3")
    length = min(LENGTH, model.forward.context or LENGTH)
    rows = min(ROWS, -(-tokens // length))
    batches = -(-tokens // (rows * length))
    texts: list[str] = []
    vocabulary = rows_in_use(model.tokenizer, model.tree.vocabulary)
    for batch in range(batches):
        generator = torch.Generator().manual_seed(seed + batch)
        first = torch.full((rows, 1), begin[0]) if begin else _any_tokens(model, rows, generator)

        def say(done: int, batch: int = batch) -> None:
            progress((batch * length + done) * rows, batches * length * rows)

        if opening:
            first = continued(model.forward, first, min(1 + opening, length), 1.0, generator, vocabulary=vocabulary)
        ids = continued(model.forward, first, length, temperature, generator, say, vocabulary)
        texts += [text for row in ids.tolist() for text in _texts(model, row, ends)]
    between = str(model.tokenizer.id_to_token(begin[0])) if begin else "\n"
    return between.join(texts) + "\n"


def _any_tokens(model: LoadedModel, rows: int, generator: torch.Generator) -> Tensor:
    return torch.randint(model.tokenizer.get_vocab_size(), (rows, 1), generator=generator)


def _texts(model: LoadedModel, row: Sequence[int], ends: Container[int]) -> list[str]:
    """The texts in a row of tokens, between any of `ends`."""
    parts: list[list[int]] = [[]]
    for token in row:
        if token in ends:
            parts.append([])
        else:
            parts[-1].append(token)
    texts = (model.tokenizer.decode(part) for part in parts)
    return [text for text in texts if text.strip()]


def continued(
    model: LanguageModel, first: Tensor, length: int, temperature: float, generator: torch.Generator,
    progress: Callable[[int], None] = lambda done: None, vocabulary: int | None = None,
) -> Tensor:  # fmt: skip
    """Token ids int64 [rows, length]: `first` [rows, given] and what the model goes on with, of the first `vocabulary`
    tokens if that is given."""
    specs = model.state_specs()
    state = [
        s[:, :, :0] if spec.in_place else s for spec, s in zip(specs, model.initial_state(len(first)), strict=True)
    ]
    ids, read = first, 0
    with torch.inference_mode():
        while ids.shape[1] < length:
            state = _grown(state, specs, ids.shape[1])
            logits, state = model(ids[:, read:], state)
            read = ids.shape[1]
            ids = torch.cat([ids, _drawn(logits[:, -1, :vocabulary], temperature, generator)], 1)
            progress(read)
    return ids.clone()


def _drawn(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    return torch.multinomial(torch.softmax(logits / temperature, -1), 1, generator=generator)


def _grown(state: list[Tensor], specs: Sequence[StateSpec], slots: int) -> list[Tensor]:
    """Caches [rows, groups, slots, ...] with room for so many tokens."""
    wanted = -(-slots // GROWTH) * GROWTH
    return [_padded(s, wanted) if spec.in_place else s for spec, s in zip(specs, state, strict=True)]


def _padded(cache: Tensor, slots: int) -> Tensor:
    missing = slots - cache.shape[2]
    return cache if missing <= 0 else functional.pad(cache, (*(0, 0) * (cache.ndim - 3), 0, missing))
