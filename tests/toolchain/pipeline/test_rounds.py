"""A build for boards: where a board is slower than its costs say, the search goes on with what was measured.

Export and delivery are stood in for: the exported graph is the list of formats, from which a board knows its time.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from machines import measurement_with

from exporters.artifact.errors import NotAvailable
from exporters.artifact.manifest import Io, Manifest
from exporters.graph_nodes import Workload
from targets.cpus.spec import CostRow, Cpu
from targets.device.measurement import Measurement, MeasureRequest
from targets.device.memory import Memory
from toolchain.compress.recipe import LayerConfig
from toolchain.delivery.deliver import measure_staged
from toolchain.estimate.latency import times_on
from toolchain.pipeline import rounds
from toolchain.pipeline.calibrate import Notifier
from toolchain.pipeline.job import Job, prepare
from toolchain.pipeline.rounds import build_on
from toolchain.pipeline.spec import resolve
from toolchain.search.plan import recipe_bytes
from toolchain.search.times import Times

MB = 10**6


def rows(fmt: str, rate: float) -> list[CostRow]:
    shapes = ((64, 64), (128, 64), (256, 256))
    return [CostRow("QLinear", fmt, r, c, 1, bits, 1 << 16, rate * r * c) for r, c in shapes for bits in (8, 32)]


COSTS = (
    *rows("int8", 1e-2), *rows("int4-g32", 1e-3),
    *(CostRow("Add", "", width, 1, 1, 0, 0, 0.1) for width in (64, 256)),
    *(CostRow("Session", "", states, 1, 1, 0, 0, 1.0) for states in (4, 32)),
)  # fmt: skip
"""Four bits are ten times as fast as eight."""
CPU = Cpu("board", "aarch64", "A72", "neon", bandwidth_gbs=4.0, costs=COSTS)


@dataclasses.dataclass
class Board:
    """A board that takes `slower` times as long as its costs say, and `beside` bytes besides what is stored; it is gone
    in the visits that `cuts` names. noise: of each visit, as a share; its repetitions differ by 20 %."""

    times: Times
    name: str = "board"
    slower: float = 1.0
    beside: int = 0
    cuts: tuple[int, ...] = ()
    visits: int = 0
    cpu: Cpu = CPU
    noise: tuple[float, ...] = ()

    def measure(self, artifact: Path, manifest: Manifest, request: MeasureRequest) -> Measurement:
        self.visits += 1
        assert manifest.files.keys() == {"model.onnx"} and (artifact / "manifest.json").is_file()
        if self.visits in self.cuts:
            raise NotAvailable(f"{self.name}: the connection was cut")
        graph = json.loads((artifact / "model.onnx").read_text())
        ms = self.slower * self.times.of({path: LayerConfig(*config) for path, config in graph["recipe"].items()})
        empty = Memory(50 * MB, 1, 1, 1, 0, 50 * MB)
        peak = dataclasses.replace(empty, peak_bytes=50 * MB + graph["bytes"] + self.beside)
        walls = (ms,) * 6
        if self.noise:
            ms *= 1 + self.noise[self.visits - 1]
            walls = (0.9 * ms,) * 3 + (1.1 * ms,) * 3
        return measurement_with(
            decode_wall_ms=walls, baseline=empty, ended=peak, reference_wall_ms=(8.0, 4.0)
        )  # fmt: skip


@pytest.fixture
def stood_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def stage(model: Any, plan: Any, encoded: Any, destination: Any, progress: Any) -> Any:
        destination.staging.mkdir()
        graph = {
            "recipe": {p: dataclasses.astuple(c) for p, c in plan.recipe.items()},
            "bytes": recipe_bytes(plan.recipe, model.tree) + model.tree.stored_state_bytes,
        }
        (destination.staging / "model.onnx").write_text(json.dumps(graph))
        return SimpleNamespace(graph=SimpleNamespace(io=Io("tokens", "logits", ())))

    def deliver(
        model: Any, plan: Any, encoded: Any, reference: Any, text: Any, destination: Any, *a: Any, staged: Any, **_: Any
    ) -> Any:
        measured = [m.measurement for m in measure_staged(model, staged, text, destination)]
        destination.staging.rename(destination.output)
        return SimpleNamespace(plan=plan, rounds=plan.rounds, ms=max(m.decode_ms.p50 for m in measured))

    def again(job: Any, compressed: Any, notifier: Any, destination: Any) -> Any:
        staged = stage(compressed.model, compressed.plan, None, destination, None)
        return deliver(compressed.model, compressed.plan, None, None, job.evaluation, destination, staged=staged)

    for name, stand_in in (("stage", stage), ("deliver", deliver), ("delivered", again),
                           ("read_workload", lambda path: Workload((), 0, 0))):  # fmt: skip
        monkeypatch.setattr(rounds, name, stand_in)


def made(tiny_model: Path, output: Path, **limits: Any) -> Job:
    given = {"model": tiny_model, "output": output, "effort": "quick", "formats": ("int8", "int4-g32"), **limits}
    return prepare(resolve(given, None, ()))


def built(job: Job, boards: Sequence[Board], *, resume: bool = False, said: list[str] | None = None) -> Any:
    say = (said if said is not None else []).append
    notifier = Notifier(progress=lambda stage, done, total: None, say=say)
    return build_on(job, boards, force=True, resume=resume, notifier=notifier)


@pytest.fixture
def times(tiny_model: Path, tmp_path: Path) -> Times:
    job = made(tiny_model, tmp_path / "unused")
    found = times_on(CPU, job.problem, job.model, 1)
    assert found is not None
    return found


@pytest.fixture
def ends_ms(tiny_model: Path, tmp_path: Path, times: Times) -> tuple[float, float]:
    """Time per token by the costs, with everything in four bits and in eight."""
    options = made(tiny_model, tmp_path / "unused").problem.options
    fast, slow = (
        {p: next((c for c in o if c.format == f), o[0]) for p, o in options.items()} for f in ("int4-g32", "int8")
    )
    assert 2 * times.of(fast) < times.of(slow)
    return times.of(fast), times.of(slow)


def test_a_slower_board_gets_faster_formats(
    tiny_model: Path, tmp_path: Path, times: Times, ends_ms: tuple[float, float], stood_in: None
) -> None:
    """The limit lies where its costs allow eight bits and the board itself does not."""
    limit, said = 1.01 * ends_ms[1], list[str]()
    board = Board(times, slower=1.6)
    done = built(made(tiny_model, tmp_path / "out", max_latency=f"{limit}ms"), [board], said=said)
    first, last = done.rounds[0], done.rounds[-1]
    assert first.predicted_ms <= limit < first.measured_ms and not first.met
    assert last.met and last.measured_ms <= limit and 2 <= last.round <= 3 and done.ms == last.measured_ms
    assert last.predicted_ms == pytest.approx(last.measured_ms, rel=0.15)
    assert board.visits == last.round, "what was measured is not measured again for delivery"
    assert any(line.startswith("round 1, board: ") and line.endswith("does not hold") for line in said)
    assert {c.format for c in done.plan.recipe.values()} >= {"int4-g32"}


def test_chance_is_not_chased(
    tiny_model: Path, tmp_path: Path, times: Times, ends_ms: tuple[float, float], stood_in: None
) -> None:
    """The first visit is 8 % over the limit, which its spread does not tell from below: two more say that it holds."""
    limit = 1.01 * ends_ms[1]
    board = Board(times, noise=(0.08, -0.04, -0.05))
    done = built(made(tiny_model, tmp_path / "out", max_latency=f"{limit}ms"), [board])
    (only,) = done.rounds
    assert only.met and only.visits == board.visits == 3 and 0.1 <= only.spread < 0.2


def test_limits_that_cannot_hold_end_with_the_closest(
    tiny_model: Path, tmp_path: Path, times: Times, ends_ms: tuple[float, float], stood_in: None
) -> None:
    job = made(tiny_model, tmp_path / "out", max_latency=f"{1.1 * ends_ms[0]}ms")
    done = built(job, [Board(times, slower=50.0)])
    assert not any(r.met for r in done.rounds) and len(done.rounds) <= 3
    assert done.ms == min(r.measured_ms for r in done.rounds)


def test_memory_beside_the_weights_is_learned(
    tiny_model: Path, tmp_path: Path, times: Times, stood_in: None
) -> None:  # fmt: skip
    """What is stored would hold; with what the board needs besides it does not: fewer bits make room for it."""
    most = built(made(tiny_model, tmp_path / "all"), [Board(times)]).rounds[0].bytes
    done = built(made(tiny_model, tmp_path / "out", max_rss=f"{most + 1_000}B"), [Board(times, beside=10_000)])
    assert [r.met for r in done.rounds] == [False, True] and done.rounds[1].bytes < done.rounds[0].bytes
    assert [r.predicted_rss_bytes - r.bytes for r in done.rounds] == [0, 10_000]
    assert done.rounds[1].predicted_rss_bytes == done.rounds[1].measured_rss_bytes


def test_the_worst_of_several_boards_counts(
    tiny_model: Path, tmp_path: Path, times: Times, ends_ms: tuple[float, float], stood_in: None
) -> None:
    job = made(tiny_model, tmp_path / "out", max_latency=f"{1.01 * ends_ms[1]}ms")
    done = built(job, [Board(times, "quick one"), Board(times, "slow one", slower=1.6)])
    last = [r for r in done.rounds if r.round == done.rounds[-1].round]
    assert [r.board for r in last] == ["quick one", "slow one"] and all(r.met for r in last)
    assert done.ms == last[1].measured_ms == pytest.approx(1.6 * last[0].measured_ms)


def test_cut_anywhere_and_resumed_the_same_artifact(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: Times, ends_ms: tuple[float, float],
    stood_in: None,
) -> None:  # fmt: skip
    """The connection breaks in the first visit of each round, and the build in each of its phases."""
    limits = {"max_latency": f"{1.01 * ends_ms[1]}ms"}
    whole = built(made(tiny_model, tmp_path / "whole", **limits), [Board(times, slower=1.6)])
    job, board = made(tiny_model, tmp_path / "cut", **limits), Board(times, slower=1.6, cuts=(1, 3))
    broken = 0
    for phase in ("plan_for", "compressed_by", "stage", "", "", "deliver", ""):
        with monkeypatch.context() as patch:
            if phase:
                patch.setattr(rounds, phase, interrupted)
            try:
                done = built(job, [board], resume=broken > 0)
            except (NotAvailable, KeyboardInterrupt):
                broken += 1
                assert not (tmp_path / "cut").exists()
    assert broken == 6 and done.rounds == whole.rounds and done.plan.recipe == whole.plan.recipe
    assert (tmp_path / "cut" / "model.onnx").read_bytes() == (tmp_path / "whole" / "model.onnx").read_bytes()
    assert board.visits == len(whole.rounds) + 2, "a round that was measured is not measured again"


def interrupted(*args: object, **kwargs: object) -> None:
    raise KeyboardInterrupt
