"""Several artifacts in turn: who runs when, and what is made of the parts."""

from __future__ import annotations

import dataclasses

import pytest

from exporters.artifact.errors import SlmcError
from targets.device.measurement import MeasureRequest
from targets.device.memory import Memory
from targets.measure.rounds import measure_in_turn, merged


def test_in_turn(measurement):
    seen: list[tuple[str, int, bool]] = []

    def one(name: str):
        def measure(request: MeasureRequest):
            seen.append((name, request.repetitions, request.bandwidth))
            return measurement()

        return measure

    taken = measure_in_turn([one("a"), one("b")], MeasureRequest(repetitions=2))
    assert seen == [("a", 1, True), ("b", 1, True), ("a", 1, False), ("b", 1, False)]
    assert [len(own) for own in taken] == [2, 2]
    seen.clear()
    measure_in_turn([one("a")], MeasureRequest(repetitions=3))
    assert seen == [("a", 3, True)]


def test_merged(measurement):
    large = Memory(9, 9, 9, 9, 0, 9)
    parts = [
        measurement(read_bandwidth_gbs=8.0, generation_uj=60),
        measurement(decode_cpu_ms=(5.0,) * 6, ended=large, load_ms=7.0, generation_uj=60),
    ]
    whole = merged(parts)
    assert whole.decode_cpu_ms == (2.0, 4.0, 90.0, 3.0, 3.0, 3.0, *(5.0,) * 6)
    assert (whole.repetitions, whole.read_bandwidth_gbs, whole.load_ms) == (4, 8.0, 7.0)
    assert whole.ended == large and whole.uj_per_token == 10.0
    assert merged([parts[0], dataclasses.replace(parts[1], generation_uj=None)]).uj_per_token is None


def test_nothing():
    with pytest.raises(SlmcError, match="no measurement was made"):
        merged([])
