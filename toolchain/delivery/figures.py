"""Quality figures of a model or an artifact as commands print them: names and values, in the order of a table."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Final

import torch
from torch import Tensor

from exporters.artifact.runtimes import ONNXRUNTIME, SLMC_RUN
from targets.device.evaluation import WORST_LOSS, Evaluation
from targets.device.measurement import Measurement
from toolchain.delivery.evaluation import Readings
from toolchain.delivery.validate import accuracy_drop
from toolchain.model.text import Text
from toolchain.quality.accuracy import AnyReference, ClassReference
from toolchain.quality.reference import Score, bits_per_byte, standard_error

Figures = dict[str, Any]
_OTHERS: Final = {ONNXRUNTIME: "onnxruntime", SLMC_RUN: "slmc_run"}


def evaluation_figures(text: Text, readings: Readings) -> Figures:
    """The artifact's own quality, and how well its ways to run agree."""
    read = readings.own
    document: dict[str, Any] = {"dataset": text.name, "tokens": len(read.losses), "perplexity": read.perplexity}
    if read.accuracy is None:
        document["bits_per_byte"] = bits_per_byte(read.perplexity, len(read.losses), text.n_bytes)
    else:
        entropy = math.log(read.perplexity)
        document = {
            "dataset": text.name, "sentences": len(read.losses), "accuracy": read.accuracy, "cross_entropy": entropy,
        }  # fmt: skip
    document |= {"token_by_token_top1": read.token_by_token_top1} | _beside("stock_runtime", read, readings.stock)
    for runtime, name in _OTHERS.items():
        if (other := readings.others.get(runtime)) is not None:
            document |= _beside(name, read, other)
    return document


def _beside(name: str, read: Evaluation, other: Evaluation | None) -> Figures:
    """Best tokens of another runtime that are the artifact's here, and its perplexity over this one's, on the same
    tokens."""
    return {
        f"{name}_top1": other.agreement(read.best) if other else None,
        f"{name}_perplexity_ratio": other.perplexity / read.head(len(other.best)).perplexity if other else None,
    }


def comparison_figures(reference: tuple[Tensor, Tensor], read: Evaluation, text: Text) -> Figures:
    """The artifact compared with the fp32 model.

    Args:
        reference: losses in nats [n] and best tokens or classes [n] of the fp32 model.
    """
    losses, best = reference
    labels = text.sentences.labels if text.sentences else None
    if read.accuracy is not None and labels is not None:
        accuracy = float(torch.eq(best, labels).double().mean())
        return {
            "reference_accuracy": accuracy,
            "relative_drop": (accuracy - read.accuracy) / max(accuracy, 1 / len(best)),
            "top1_agreement": read.agreement(tuple(best.tolist())),
        }
    difference = torch.tensor(read.losses, dtype=torch.float64) - losses
    perplexity = math.exp(min(float(losses.mean()), WORST_LOSS))
    return {
        "reference_perplexity": perplexity,
        "relative_drop": read.perplexity / perplexity - 1,
        "standard_error": standard_error(difference),
        "reference_bits_per_byte": bits_per_byte(perplexity, len(losses), text.n_bytes),
        "top1_agreement": read.agreement(tuple(best.tolist())),
    }


def score_figures(score: Score, text: Text) -> Figures:
    """A model or artifact compared with the model that it is scored against."""
    if score.accuracy is not None:
        drop, upper = accuracy_drop(score)
        return {
            "dataset": text.name,
            "sentences": score.tokens,
            "accuracy": score.accuracy,
            "reference_accuracy": score.reference_accuracy,
            "relative_drop": drop,
            "relative_drop_upper": upper,
            "expected_drop": score.relative_drop,
            "standard_error": score.accuracy_error,
            "kl_mean": score.kl_mean,
            "top1_agreement": score.top1_agreement,
        }
    return {
        "dataset": text.name,
        "tokens": score.tokens,
        "perplexity": score.perplexity,
        "reference_perplexity": score.reference,
        "relative_drop": score.relative_drop,
        "standard_error": score.standard_error,
        "bits_per_byte": bits_per_byte(score.perplexity, score.tokens, text.n_bytes),
        "reference_bits_per_byte": bits_per_byte(score.reference, score.tokens, text.n_bytes),
        "kl_mean": score.kl_mean,
        "top1_agreement": score.top1_agreement,
    }


def own_figures(own: AnyReference, text: Text) -> Figures:
    """A model's or artifact's quality by itself."""
    if isinstance(own, ClassReference):
        count, entropy = len(own.labels), math.log(own.perplexity)
        return {"dataset": text.name, "sentences": count, "accuracy": own.accuracy, "cross_entropy": entropy}
    count = len(text.ids) - 1
    bits = bits_per_byte(own.perplexity, count, text.n_bytes)
    return {"dataset": text.name, "tokens": count, "perplexity": own.perplexity, "bits_per_byte": bits}


def speed_figures(m: Measurement) -> Figures:
    """Speed and memory of one measurement."""
    return {
        "load_ms": m.load_ms,
        "prompt_tps": m.prompt_tps,
        "decode_tps": m.decode_tps,
        **{f"decode_{k}_ms": v for k, v in dataclasses.asdict(m.decode_ms).items()},
        "rss_peak_bytes": m.ended.peak_bytes,
        "rss_after_load_bytes": m.loaded.rss_bytes,
        "rss_baseline_bytes": m.baseline.rss_bytes,
        "private_bytes": m.ended.private_bytes,
        "file_backed_bytes": m.ended.file_backed_bytes,
        "native": m.native_library is not None,
        "isa": m.isa,
        "ort_version": m.ort_version,
    }
