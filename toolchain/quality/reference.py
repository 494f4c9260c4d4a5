"""How much a compressed model still knows: perplexity, KL divergence and top-1 agreement against the fp32 model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from exporters.artifact.errors import SlmcError
from targets.device.measurement import pieces
from toolchain.model.family import LanguageModel
from toolchain.model.sentences import Sentences
from toolchain.model.text import Reading

CHUNK = 512
"""Tokens per forward pass; the state is carried, so the choice changes nothing but speed."""

KEEP_BYTES = 2**30
"""Log-probabilities of the reference are kept up to this size, and computed anew beyond it."""

BLOCK = 32
"""Neighbouring tokens are averaged in blocks of this many before their spread is taken: they are not independent."""


WORST_LOSS = 700.0
"""Nats per token that a broken model is said to lose: exp of it is still a number."""


@dataclass(frozen=True)
class Score:
    """Quality on a text of `tokens` predictions.

    relative_drop: perplexity / reference - 1, > 0 is worse. standard_error: of the mean difference of the per-token
    losses, in nats, which is that of the drop where both are small. kl_mean: KL(reference || model) in nats per token.
    top1_agreement: share of equal best tokens. Of a classifier all is per sentence, and relative_drop, standard_error:
    of the expected accuracy (see classes.py); accuracy_error: standard error of the difference of the two accuracies,
    one more changed answer allowed for.
    """

    perplexity: float
    reference: float
    relative_drop: float
    standard_error: float
    kl_mean: float
    top1_agreement: float
    tokens: int
    accuracy: float | None = None
    reference_accuracy: float | None = None
    accuracy_error: float | None = None

    def to_text(self) -> str:
        """The metric and its drop, in a few words."""
        if self.accuracy is not None:
            return f"accuracy {self.accuracy:.2%} ({self.relative_drop:+.2%} expected)"
        return f"perplexity {self.perplexity:.3f} ({self.relative_drop:+.2%})"


def stream_logits(model: LanguageModel, ids: Reading, chunk: int = CHUNK) -> Iterator[tuple[int, Tensor]]:
    """(position, logits [t, V]) over token ids [n], the state carried from chunk to chunk within a context.

    Over sentences (tokens read before, scores [b, classes]) of their batches, each sentence from an empty state.
    """
    if isinstance(ids, Sentences):
        yield from _stream_scores(model, ids)
        return
    state = model.initial_state(1)
    for start, end in pieces(len(ids), model.context, chunk):
        if model.context and start and start % model.context == 0:
            state = model.initial_state(1)
        # The mode ends before the yield: an abandoned generator would leave it on in its caller.
        with torch.inference_mode():
            logits, state = model(ids[None, start:end], state)
        yield start, logits[0]


def _stream_scores(model: LanguageModel, sentences: Sentences) -> Iterator[tuple[int, Tensor]]:
    read = 0
    for batch in sentences.batches():
        tokens = sentences.stacked(batch)
        with torch.inference_mode():
            scores, _ = model(tokens, model.initial_state(len(tokens)))
        yield read, scores[:, 0]
        read += tokens.numel()


class Reference:
    """The fp32 model's predictions on a text: what every candidate is compared with."""

    def __init__(self, model: LanguageModel, ids: Tensor) -> None:
        self.model, self.ids = model, ids
        self._kept: dict[int, Tensor] | None = None
        losses, kept = [], {}
        size = 0
        for start, logits in stream_logits(model, ids):
            log_probs = torch.log_softmax(logits, -1)
            losses.append(next_token_losses(log_probs, self.ids, start, self.model.context))
            size += log_probs.nbytes
            if size <= KEEP_BYTES:
                kept[start] = log_probs
        self.losses = torch.cat(losses)
        if not torch.isfinite(self.losses).all():
            at = int((~torch.isfinite(self.losses)).nonzero()[0])
            raise SlmcError(f"the fp32 model gives no finite prediction after token {at} of the text; it overflows")
        self._kept = kept if size <= KEEP_BYTES else None

    @property
    def perplexity(self) -> float:
        return _exp(float(self.losses.double().mean()))

    def _chunks(self) -> Iterator[Tensor]:
        if self._kept is not None:
            yield from self._kept.values()
            return
        for _, logits in stream_logits(self.model, self.ids):
            yield torch.log_softmax(logits, -1)

    def score(self, chunks: Iterable[tuple[int, Tensor]]) -> Score:
        """The score of a model whose (position, logits [t, V]) come in the chunks of `stream_logits`."""
        losses, kl, same = [], 0.0, 0
        with torch.inference_mode():
            for (start, logits), reference in zip(chunks, self._chunks(), strict=True):
                log_probs = torch.log_softmax(logits, -1)
                losses.append(next_token_losses(log_probs, self.ids, start, self.model.context))
                kl += float(torch.nn.functional.kl_div(log_probs, reference, reduction="sum", log_target=True))
                same += int((log_probs.argmax(-1) == reference.argmax(-1)).sum())
        kl = WORST_LOSS if math.isnan(kl) else kl / len(self.ids)
        return self._summary(torch.nan_to_num(torch.cat(losses), nan=WORST_LOSS), kl, same / len(self.ids))

    def _summary(self, losses: Tensor, kl: float, same: float) -> Score:
        difference = (losses - self.losses).double()
        drop = math.expm1(min(max(float(difference.mean()), -30.0), WORST_LOSS))  # never -1: it has a logarithm
        perplexity = _exp(float(losses.double().mean()))
        return Score(perplexity, self.perplexity, drop, standard_error(difference), max(kl, 0.0), same, len(losses))


def next_token_losses(log_probs: Tensor, ids: Tensor, start: int, context: int | None) -> Tensor:
    """Losses [t or t - 1] in nats of the tokens that follow those of one chunk.

    Args:
        log_probs: log-probabilities [t, V] after the tokens start to start + t.
        ids: all token ids [n]; nothing follows the last one.
        context: the first token of every context but the first is not predicted.
    """
    end = start + len(log_probs)
    targets = ids[start + 1 : end if context and end % context == 0 else end + 1]
    return -log_probs[: len(targets)].gather(1, targets[:, None])[:, 0]


def _exp(loss: float) -> float:
    """Perplexity of a mean loss in nats, without overflow."""
    return math.exp(min(loss, WORST_LOSS))


def standard_error(difference: Tensor) -> float:
    """Standard error of the mean of a correlated series [n], by the spread of block means."""
    blocks = difference[: len(difference) // BLOCK * BLOCK].view(-1, BLOCK).mean(1)
    return float(blocks.std()) / math.sqrt(len(blocks)) if len(blocks) > 1 else math.inf


def bits_per_byte(perplexity: float, tokens: int, n_bytes: int) -> float:
    """Bits per UTF-8 byte of a text of so many predicted tokens."""
    return math.log2(perplexity) * tokens / n_bytes
