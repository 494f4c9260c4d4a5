"""Text from an open session, token by token; of a classifier, how likely it holds each class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from targets.session import Session
from toolchain.delivery.run_artifact import pick, softmax


def generate(
    session: Session, tokenizer: Tokenizer, prompt: str, tokens: int, *, temperature: float, top_k: int, seed: int
) -> Iterator[str]:
    """Pieces of text, the prompt first; whole characters only. Ends early where the context is full."""
    random = np.random.default_rng(seed)
    session.reset()
    written: list[int] = tokenizer.encode(prompt).ids or [0]
    shown: str = tokenizer.decode(written)
    yield shown
    logits: NDArray[np.float32] = session.prefill(np.array([written], np.int64))
    for _ in range(tokens if session.room is None else min(tokens, session.room)):
        written.append(pick(logits, temperature, top_k, random))
        text: str = tokenizer.decode(written)
        if not text.endswith("\ufffd"):
            yield text[len(shown) :]
            shown = text
        logits = session.step(written[-1])


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
