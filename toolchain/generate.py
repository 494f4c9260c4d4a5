"""Text from an open session, token by token."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from targets.session import Session
from toolchain.delivery.run_artifact import pick


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
