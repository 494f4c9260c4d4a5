"""Each check fails for its own regression and for no other, and passes what has become better."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from exporters.artifact.errors import SlmcError
from toolchain.gate.checks import (
    CHECKS,
    FAILED,
    NOT_COMPARABLE,
    PASSED,
    Check,
    Compared,
    Tolerances,
    parse_tolerances,
    run_checks,
)
from toolchain.gate.values import Figures, LayerSize, Speed


def verdicts(before: Figures, now: Figures, again: Speed | None = None, **tolerances: float) -> dict[str, Check]:
    compared = Compared(before, now, Tolerances(**tolerances), lambda: again or now.speed)
    return {check.name: check for check in run_checks(compared)}


def failed(checks: dict[str, Check]) -> list[str]:
    return [name for name, check in checks.items() if check.status == FAILED]


def inside(figures: Figures, part: str, **values: Any) -> Figures:
    return dataclasses.replace(figures, **{part: dataclasses.replace(getattr(figures, part), **values)})


def test_nothing_changed(figures: Figures) -> None:
    checks = verdicts(figures, figures)
    assert len(checks) == len(CHECKS) and all(check.status == PASSED for check in checks.values())


def worse(figures: Figures) -> dict[str, Figures]:
    """Check -> figures that it alone must refuse."""
    lower = {**figures.layers, "head": LayerSize("int3-g64", 720)}
    return {
        "size": inside(figures, "sizes", file=1260),
        "layers": dataclasses.replace(figures, layers=lower),
        "perplexity": inside(figures, "predictions", perplexity=20.11),
        "top-1 agreement": inside(figures, "predictions", top1_agreement=0.89),
        "parity token by token": inside(figures, "predictions", token_by_token_top1=0.99),
        "parity with plain runtime": inside(figures, "predictions", stock_runtime_top1=0.99),
        "memory": dataclasses.replace(figures, model_memory_bytes=(11_000_000, 11_010_000, 11_000_000)),
        "latency": dataclasses.replace(figures, speed=Speed((1.15, 1.16, 1.14), 2.0)),
    }


def test_every_check_has_a_regression_of_its_own(figures: Figures) -> None:
    assert worse(figures).keys() == verdicts(figures, figures).keys()
    for name, now in worse(figures).items():
        assert failed(verdicts(figures, now)) == [name]


def test_texts_that_come_in_one_call_are_not_read_token_by_token(figures: Figures) -> None:
    whole = inside(figures, "predictions", token_by_token_top1=None)
    check = verdicts(whole, whole)["parity token by token"]
    assert check.status == NOT_COMPARABLE and "texts come in one call" in check.why
    assert failed(verdicts(figures, whole)) == []


def test_better_is_never_wrong(figures: Figures) -> None:
    now = inside(inside(figures, "predictions", perplexity=15.0, top1_agreement=0.99), "sizes", file=600)
    now = dataclasses.replace(now, model_memory_bytes=(5_000_000,), speed=Speed((0.5, 0.5, 0.5), 2.0))
    assert failed(verdicts(figures, now)) == []


def test_within_the_tolerance(figures: Figures) -> None:
    now = inside(figures, "predictions", perplexity=20.09, top1_agreement=0.8951)
    now = dataclasses.replace(now, speed=Speed((1.05, 1.06, 1.04), 2.0), model_memory_bytes=(10_400_000,))
    assert failed(verdicts(figures, now)) == []
    tight = {"perplexity": 0.001, "agreement": 0.001, "latency": 0.0, "memory": 0.01}
    assert failed(verdicts(figures, now, **tight)) == ["perplexity", "top-1 agreement", "memory", "latency"]


def test_no_number_at_all_is_a_failure(figures: Figures) -> None:
    now = inside(figures, "predictions", perplexity=float("nan"), top1_agreement=float("nan"))
    assert failed(verdicts(figures, now)) == ["perplexity", "top-1 agreement"]


def test_layers_are_named(figures: Figures) -> None:
    now = {f"blocks.{i}": LayerSize("int8", 1) for i in range(4)}
    check = verdicts(figures, dataclasses.replace(figures, layers=now))["layers"]
    assert check.now == "6 changed" and "blocks.0: none -> int8 1 bytes" in check.why and "and 3 more" in check.why


def test_slower_has_to_be_said_twice(figures: Figures) -> None:
    slow, quick = Speed((1.15, 1.16, 1.14), 2.0), figures.speed
    once = verdicts(figures, dataclasses.replace(figures, speed=slow), again=quick)["latency"]
    assert once.status == PASSED and "not confirmed" in once.why
    twice = verdicts(figures, dataclasses.replace(figures, speed=slow), again=slow)["latency"]
    assert twice.status == FAILED and "confirmed by a second" in twice.why and "+15.0%" in twice.why


def test_slower_by_chance_is_not_slower(figures: Figures) -> None:
    """20 % more on average, but from processes that differ by more than that."""
    unsure = Speed((0.9, 1.2, 1.5), 2.0)
    assert failed(verdicts(figures, dataclasses.replace(figures, speed=unsure))) == []


def test_a_slower_machine_is_not_a_slower_artifact(figures: Figures) -> None:
    assert failed(verdicts(figures, dataclasses.replace(figures, speed=Speed((1.5, 1.51, 1.49), 3.0)))) == []


def test_memory_that_differs_from_process_to_process(figures: Figures) -> None:
    now = dataclasses.replace(figures, model_memory_bytes=(10_000_000, 11_000_000, 11_900_000))
    assert failed(verdicts(figures, now)) == [], "1 MB more is within three times what the processes differ by"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cpu", "B CPU"),
        ("isa", "sse2"),
        ("threads", 2),
        ("ort_version", "1.30"),
        ("native", False),
        ("reference_work", "def"),
    ],
)
def test_another_machine(figures: Figures, field: str, value: object) -> None:
    now = inside(figures, "machine", **{field: value})
    now = dataclasses.replace(now, speed=Speed((9.0, 9.0, 9.0), 2.0), model_memory_bytes=(90_000_000,))
    checks = verdicts(figures, now)
    for name in ("memory", "latency"):
        assert checks[name].status == NOT_COMPARABLE and f"{field} was" in checks[name].why
    assert failed(checks) == []


def test_tolerances() -> None:
    assert parse_tolerances(()) == Tolerances()
    assert parse_tolerances(("latency=10%", "memory=20%")) == Tolerances(latency=0.1, memory=0.2)
    for wrong in ("latency", "speed=1%", "=1%"):
        with pytest.raises(SlmcError, match=r"--tolerance .*names are size, perplexity"):
            parse_tolerances((wrong,))
    with pytest.raises(SlmcError, match="--tolerance latency"):
        parse_tolerances(("latency=fast",))
