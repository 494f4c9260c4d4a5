"""The quality of a compressed model: perplexity, KL divergence and top-1 agreement with the fp32 model."""

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
"""Tokens per forward pass. The state is carried over, so this only affects speed."""

KEEP_BYTES = 2**30
"""Log-probabilities of the reference are kept in memory up to this size. Larger ones are computed again."""

BLOCK = 32
"""Tokens per block of the standard error. Losses of neighbouring tokens are not independent, block means almost are."""

WORST_LOSS = 700.0
"""The loss of a broken model in nats per token. Its exp is still finite."""


@dataclass(frozen=True)
class Score:
    """The quality of a model on a text, or of a classifier on sentences.

    For a classifier everything is per sentence, and `relative_drop` and `standard_error` refer to the expected
    accuracy (toolchain.quality.accuracy).

    Attributes:
        perplexity: of the model.
        reference: perplexity of the fp32 model.
        relative_drop: perplexity / reference - 1; positive is worse.
        standard_error: of the mean difference of the losses, in nats per token. For small values also that of
            `relative_drop`.
        kl_mean: KL(reference || model), in nats per token.
        top1_agreement: share of predictions with the same most probable token.
        tokens: number of predictions.
        accuracy: share of right answers of a classifier; None for a language model, as the next two.
        reference_accuracy: that of the fp32 model.
        accuracy_error: standard error of the difference of the two accuracies. It allows for one more changed answer.
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
        """The metric and its drop as a short text."""
        if self.accuracy is not None:
            return f"accuracy {self.accuracy:.2%} ({self.relative_drop:+.2%} expected)"
        return f"perplexity {self.perplexity:.3f} ({self.relative_drop:+.2%})"


def stream_logits(model: LanguageModel, ids: Reading, chunk: int = CHUNK) -> Iterator[tuple[int, Tensor]]:
    """The predictions of a model, chunk by chunk.

    Args:
        ids: token ids int64 [n], or sentences.
        chunk: tokens per forward pass; not used for sentences.

    Yields:
        For a text (position, logits [t, vocabulary]); the state is carried over within a context. For sentences
        (tokens read before, scores [b, classes]) per batch; every sentence starts from an empty state.
    """
    if isinstance(ids, Sentences):
        yield from _stream_scores(model, ids)
        return
    state = model.initial_state(1)
    for start, end in pieces(len(ids), model.context, chunk):
        if model.context and start and start % model.context == 0:
            state = model.initial_state(1)
        # The mode ends before the yield. Otherwise an abandoned generator would leave it on in its caller.
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
    """The fp32 model's predictions on a text. Every candidate is compared with them."""

    def __init__(self, model: LanguageModel, ids: Tensor) -> None:
        self.model, self.ids = model, ids
        losses, self._kept, self._starts = [], dict[int, Tensor](), list[int]()
        size = 0
        for start, logits in stream_logits(model, ids):
            log_probs = torch.log_softmax(logits, -1)
            losses.append(next_token_losses(log_probs, self.ids, start, self.model.context))
            self._starts.append(start)
            size += log_probs.nbytes
            if size <= KEEP_BYTES:
                self._kept[start] = log_probs
        self.losses = torch.cat(losses)
        if not torch.isfinite(self.losses).all():
            at = int((~torch.isfinite(self.losses)).nonzero()[0])
            raise SlmcError(f"the fp32 model gives no finite prediction after token {at} of the text; it overflows")
        self._whole = size <= KEEP_BYTES

    @property
    def perplexity(self) -> float:
        return _exp(float(self.losses.double().mean()))

    def _chunks(self, known_alone: bool) -> Iterator[Tensor | None]:
        """The predictions chunk by chunk; known_alone: None for those that are not in memory, if any is."""
        if self._whole or (known_alone and self._kept):
            yield from map(self._kept.get, self._starts)
            return
        for _, logits in stream_logits(self.model, self.ids):
            yield torch.log_softmax(logits, -1)

    def score(self, chunks: Iterable[tuple[int, Tensor]], *, known_alone: bool = False) -> Score:
        """Score a model.

        Args:
            chunks: its (position, logits [t, vocabulary]), in the chunks of `stream_logits`.
            known_alone: compare distributions where the reference's are in memory. Otherwise those that are not are
                computed again, which doubles the time. The perplexity is of all tokens either way.
        """
        losses, kl, same, compared = [], 0.0, 0, 0
        with torch.inference_mode():
            for (start, logits), reference in zip(chunks, self._chunks(known_alone), strict=True):
                log_probs = torch.log_softmax(logits, -1)
                losses.append(next_token_losses(log_probs, self.ids, start, self.model.context))
                if reference is not None:
                    kl += float(torch.nn.functional.kl_div(log_probs, reference, reduction="sum", log_target=True))
                    same += int((log_probs.argmax(-1) == reference.argmax(-1)).sum())
                    compared += len(reference)
        kl = WORST_LOSS if math.isnan(kl) else kl / compared
        return self._summary(torch.nan_to_num(torch.cat(losses), nan=WORST_LOSS), kl, same / compared)

    def _summary(self, losses: Tensor, kl: float, same: float) -> Score:
        difference = (losses - self.losses).double()
        drop = math.expm1(min(max(float(difference.mean()), -30.0), WORST_LOSS))  # 1 + drop has a logarithm
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
    """The perplexity of a mean loss in nats, without overflow."""
    return math.exp(min(loss, WORST_LOSS))


def standard_error(difference: Tensor) -> float:
    """The standard error of the mean of a correlated series [n], from the spread of block means."""
    blocks = difference[: len(difference) // BLOCK * BLOCK].view(-1, BLOCK).mean(1)
    return float(blocks.std()) / math.sqrt(len(blocks)) if len(blocks) > 1 else math.inf


def bits_per_byte(perplexity: float, tokens: int, n_bytes: int) -> float:
    """Bits per UTF-8 byte of a text with `tokens` predicted tokens and `n_bytes` bytes."""
    return math.log2(perplexity) * tokens / n_bytes
