"""Losses and best tokens of a torch model on a text, as a device's evaluation gives them of an artifact."""

from __future__ import annotations

import torch
from torch import Tensor

from toolchain.model.family import LanguageModel
from toolchain.model.sentences import Sentences
from toolchain.model.text import Reading
from toolchain.quality.accuracy import ClassReference
from toolchain.quality.reference import next_token_losses, stream_logits


def predictions(model: LanguageModel, ids: Reading) -> tuple[Tensor, Tensor]:
    """Losses float64 in nats and best tokens int64 [n] of a torch model over token ids [n], as of an Evaluation."""
    if isinstance(ids, Sentences):
        return _class_predictions(model, ids)
    losses, best = [], []
    for start, logits in stream_logits(model, ids):
        log_probs = torch.log_softmax(logits.double(), -1)
        losses.append(next_token_losses(log_probs, ids, start, model.context))
        best.append(logits.argmax(-1))
    return torch.cat(losses), torch.cat(best)


def _class_predictions(model: LanguageModel, sentences: Sentences) -> tuple[Tensor, Tensor]:
    """Losses of the labels and best classes, sentence by sentence in the file's order."""
    reference = ClassReference(model, sentences)
    place = torch.argsort(torch.cat(sentences.batches()))
    return reference.losses.double()[place], reference.log_probs.argmax(-1)[place]
