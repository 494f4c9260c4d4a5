"""The quality of a compressed classifier compared with the fp32 model."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from exporters.artifact.errors import SlmcError
from toolchain.model.family import LanguageModel
from toolchain.model.sentences import Sentences
from toolchain.model.text import Reading
from toolchain.quality.reference import WORST_LOSS, Reference, Score, stream_logits

ONE_MORE = 0.25
"""Standard errors allow for one more changed answer. The model is assumed to be this sure of it."""


class ClassReference:
    """The fp32 model's class probabilities for labelled sentences. Every candidate is compared with them.

    A candidate is judged by its expected accuracy if labels were drawn from the fp32 model's predictions:

        drop = mean_i (p_i[best_i] - p_i[candidate's best_i]) / mean_i p_i[best_i]

    A changed answer counts by the fp32 model's confidence, not as fully right or wrong. This has less variance than
    measured accuracy, in which right and wrong changes partly cancel by chance. The drop is never negative.
    """

    def __init__(self, model: LanguageModel, sentences: Sentences) -> None:
        if sentences.labels is None:
            raise SlmcError(
                "the sentences have no labels, and a classifier is judged by them; give a table with labels"
            )
        self.model, self.sentences = model, sentences
        self.labels = sentences.labels[torch.cat(sentences.batches())]
        self.log_probs = _log_probs(stream_logits(model, sentences))
        if not torch.isfinite(self.log_probs).all():
            raise SlmcError("the fp32 model gives no finite scores for some sentence; it overflows")
        self.losses = self._losses(self.log_probs)

    @property
    def perplexity(self) -> float:
        """exp of the mean cross-entropy of the labels. 1: always certain and right; the number of classes: guessing."""
        return _exp(self.losses)

    @property
    def accuracy(self) -> float:
        """The share of sentences whose most probable class is the label."""
        return float((self.log_probs.argmax(-1) == self.labels).double().mean())

    def _losses(self, log_probs: Tensor) -> Tensor:
        return torch.nan_to_num(-log_probs.gather(1, self.labels[:, None])[:, 0], nan=WORST_LOSS)

    def score(self, chunks: Iterable[tuple[int, Tensor]], *, known_alone: bool = False) -> Score:
        """Score a classifier.

        Args:
            chunks: its (tokens read before, scores [b, classes]), in the batches of `stream_logits`.
            known_alone: makes no difference: what the reference says of sentences is in memory.
        """
        found = _log_probs(chunks)
        best, own = found.argmax(-1), self.log_probs.argmax(-1)
        probs = self.log_probs.double().exp()
        expected = probs.gather(1, own[:, None])[:, 0]
        fall = expected - probs.gather(1, best[:, None])[:, 0]
        right, own_right = (best == self.labels).double(), (own == self.labels).double()
        kl = float((probs * (self.log_probs - found)).sum(1).mean())
        count, whole = len(own), float(expected.mean())
        return Score(
            perplexity=_exp(self._losses(found)),
            reference=self.perplexity,
            relative_drop=float(fall.mean()) / whole,
            standard_error=math.sqrt(float(fall.square().sum()) + ONE_MORE**2) / count / whole,
            kl_mean=WORST_LOSS if math.isnan(kl) else max(kl, 0.0),
            top1_agreement=float((best == own).double().mean()),
            tokens=count,
            accuracy=float(right.mean()),
            reference_accuracy=float(own_right.mean()),
            accuracy_error=math.sqrt(float((right - own_right).var(correction=0)) * count + 1) / count,
        )


def _log_probs(chunks: Iterable[tuple[int, Tensor]]) -> Tensor:
    """Log-probabilities [sentences, classes] in the order of the batches."""
    return torch.cat([torch.log_softmax(scores, -1) for _, scores in chunks])


def _exp(losses: Tensor) -> float:
    return math.exp(min(float(losses.double().mean()), WORST_LOSS))


AnyReference = Reference | ClassReference


def reference_for(model: LanguageModel, reading: Reading) -> AnyReference:
    """The fp32 model's predictions on a text (of the next token) or on sentences (of classes)."""
    return ClassReference(model, reading) if isinstance(reading, Sentences) else Reference(model, reading)
