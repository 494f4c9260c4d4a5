"""Text from an open session, token by token; of a classifier, how likely it holds each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from exporters.artifact.errors import SlmcError
from exporters.artifact.text_rules import Chat, TextRules
from targets.device.continuation import ArtifactError, Continuation, check_prompt, softmax
from targets.device.session import Session
from targets.runtime.session import ServedSession
from toolchain.model.chat import prompt_text


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn: at temperature 0 always the best, else one of the top_k best; equal seeds, equal texts."""

    temperature: float = 0.7
    top_k: int = 40
    seed: int = 0


@dataclass(frozen=True)
class Ending:
    """What ends a text beside its length: the model's own rules unless `own` is false, and more strings."""

    own: bool = True
    stop: tuple[str, ...] = ()


def prompt_ids(tokenizer: Tokenizer, rules: TextRules, prompt: str) -> list[int]:
    """A text to go on from as tokens; the tokenizer puts the begin tokens before it."""
    return tokenizer.encode(prompt).ids or [rules.start]


def chat_ids(tokenizer: Tokenizer, chat: Chat, question: str, system: str | None) -> list[int]:
    """A question as its tokens in the model's chat template, which writes begin tokens itself.

    Raises:
        SlmcError: as `prompt_text`.
    """
    ids: list[int] = tokenizer.encode(prompt_text(chat, question, system), add_special_tokens=False).ids
    return ids


def continuation(
    session: Session | ServedSession, tokenizer: Tokenizer, ids: Sequence[int], tokens: int, sampling: Sampling,
    rules: TextRules | None = None, ending: Ending = Ending(), chat: Chat | None = None,
) -> Continuation:  # fmt: skip
    """What the model goes on with after `ids`, at most so many tokens, whole characters only.

    Args:
        chat: of an answer, which further tokens may end.

    Raises:
        SlmcError: the prompt is longer than the context.
    """
    try:
        check_prompt(ids, session.io.context)
    except ArtifactError as error:
        raise SlmcError(str(error)) from error
    session.reset()
    own = rules if ending.own and rules is not None else TextRules()
    end = (*own.end, *(chat.end if chat and ending.own else ()))
    return Continuation(
        session, tokenizer, ids, tokens=tokens, temperature=sampling.temperature, top_k=sampling.top_k,
        seed=sampling.seed, end=end, stop=(*own.stop, *ending.stop),
    )  # fmt: skip


def classified(session: Session, ids: Sequence[int]) -> dict[str, float]:
    """Probability of every class for a text of token ids, by the name of the class."""
    assert session.io.classes is not None
    session.reset()
    shares = softmax(session.prefill(np.array([ids], np.int64)))
    return dict(zip(session.io.classes.labels, shares.tolist(), strict=True))


def shares_text(shares: Mapping[str, float]) -> str:
    """Classes with their probabilities, the likeliest first: positive 93.1 %, negative 6.9 %."""
    ranked = sorted(shares.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {share:.1%}".replace("%", " %") for name, share in ranked)
