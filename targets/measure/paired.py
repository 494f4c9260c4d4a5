"""Is it slower than it was? Two sets of measurements compared, with an interval that says how sure the answer is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from exporters.artifact.errors import SlmcError

_T_95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
)  # fmt: skip
"""Student's t, two-sided 95 %, for 1 to 20 degrees of freedom (NIST/SEMATECH e-Handbook, table 1.3.6.7.2)."""


@dataclass(frozen=True)
class Comparison:
    """ratio = candidate / baseline in time, 1.15 for 15 % slower, inside [low, high] with 95 % confidence.

    runs: how many processes stand on either side.
    """

    ratio: float
    low: float
    high: float
    runs: tuple[int, int]

    def slower_than(self, share: float) -> bool:
        """Whether the whole interval lies above 1 + share: slower, and not by chance."""
        return self.low > 1 + share


def compare(candidate: Sequence[float], baseline: Sequence[float]) -> Comparison:
    """Two artifacts by one time per process, best a low quantile of what the process took for each token.

    The unit is the process, because repetitions within one share its memory layout and its neighbours: they agree with
    each other better than with the next process. Times are compared as logarithms with Student's t and one variance for
    both sides, which are the same machine.

    Raises:
        SlmcError: a side is empty, both together are fewer than three, or a time is not positive.
    """
    sides = ([math.log(_positive(t)) for t in candidate], [math.log(_positive(t)) for t in baseline])
    n, m = map(len, sides)
    freedom = n + m - 2
    if not n or not m or freedom < 1:
        raise SlmcError(f"{n} and {m} processes cannot be compared; measure three or more, one on each side at least")
    means = [math.fsum(side) / len(side) for side in sides]
    squares = math.fsum((x - mean) ** 2 for side, mean in zip(sides, means, strict=True) for x in side)
    error = math.sqrt(squares / freedom * (1 / n + 1 / m))
    return _comparison(means[0] - means[1], _t95(freedom) * error, (n, m))


def compare_paired(candidate: Sequence[float], baseline: Sequence[float]) -> Comparison:
    """The same for times taken in turn, the i-th of one beside the i-th of the other: what slows a pair cancels out.

    Raises:
        SlmcError: other than equally many, fewer than two, or a time is not positive.
    """
    if len(candidate) != len(baseline) or len(candidate) < 2:
        raise SlmcError(f"{len(candidate)} and {len(baseline)} times are no pairs; measure two or more of each in turn")
    logs = [math.log(_positive(a) / _positive(b)) for a, b in zip(candidate, baseline, strict=True)]
    mean = math.fsum(logs) / len(logs)
    variance = math.fsum((x - mean) ** 2 for x in logs) / (len(logs) - 1)
    return _comparison(mean, _t95(len(logs) - 1) * math.sqrt(variance / len(logs)), (len(logs), len(logs)))


def _comparison(log_ratio: float, half_width: float, runs: tuple[int, int]) -> Comparison:
    return Comparison(math.exp(log_ratio), math.exp(log_ratio - half_width), math.exp(log_ratio + half_width), runs)


def _t95(freedom: int) -> float:
    # Above 20 the last entry is used: it is a little too wide, never too narrow.
    return _T_95[min(freedom, len(_T_95)) - 1]


def _positive(time: float) -> float:
    if not 0 < time < math.inf:
        raise SlmcError(f"a time of {time} cannot be compared; it must be more than 0")
    return time
