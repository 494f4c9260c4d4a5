"""Honest bits per weight and effective throughput of a format, by formula."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from exporters.formats.catalog import format_named
from exporters.formats.patterns import Patterns
from toolchain.study.cells import PRUNED

SCALE_BITS = 16


@dataclass(frozen=True)
class Term:
    """One part of a matrix: `kept` of every `period` weights in `bits` bits, a scale per `group` inputs or none."""

    kept: int
    period: int
    bits: int
    group: int | None


def pattern_of(fmt: str) -> tuple[int, int]:
    """N and M of a name such as 2:4/fp16."""
    kept, _, period = fmt.partition("/")[0].partition(":")
    return int(kept), int(period)


def terms(fmt: str, cols: int) -> tuple[Term, ...]:
    """The parts of a format for rows of `cols` inputs; a dense one is a part that keeps all."""
    if fmt.endswith(f"/{PRUNED}"):
        return (Term(*pattern_of(fmt), 16, None),)
    named = format_named(fmt)
    parts = tuple(Term(p.kept, p.period, p.values.bits, p.values.group or cols) for p in named.parts)
    return parts or (Term(1, 1, named.bits, None),)


def throughput(fmt: str) -> float:
    """Products per time beside dense 16-bit ones: 1 / sum_k (N_k / M_k) (bits_k / 16).

    On hardware that skips zeros for any N and doubles its rate where operands halve (SDQ, arXiv 2406.13868, section 5);
    inputs are taken to be as narrow as the weights.
    """
    return 1 / sum(t.kept / t.period * t.bits / 16 for t in terms(fmt, 1))


def ideal_bits(fmt: str, cols: int) -> float:
    """Bits per weight with the best possible index: payload, log2 of the number of patterns, float16 scales.

    sum_k (N_k / M) bits_k + log2(M! / prod_k N_k! / (M - sum_k N_k)!) / M + sum_k 16 / V_k
    """
    some = terms(fmt, cols)
    period, free, patterns = some[0].period, some[0].period, 1
    for term in some:
        patterns *= math.comb(free, term.kept)
        free -= term.kept
    return _payload(some) + math.log2(patterns) / period + _scales(some)


def pruned_bits(fmt: str) -> float:
    """Bits per weight of 2:4/fp16 with patterns coded as our N:M formats code them; no format stores it as yet."""
    kept, period = pattern_of(fmt)
    patterns = Patterns(kept, period)
    return 16 * kept / period + patterns.field_bits / patterns.width


def _payload(some: tuple[Term, ...]) -> float:
    return sum(t.kept / t.period * t.bits for t in some)


def _scales(some: tuple[Term, ...]) -> float:
    return math.fsum(_scale_bits(some))


def _scale_bits(some: tuple[Term, ...]) -> Iterator[float]:
    for term in some:
        yield SCALE_BITS / term.group if term.group else 0.0
