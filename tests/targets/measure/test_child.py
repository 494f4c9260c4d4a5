"""A measurement end to end on a real model in a real child process, the ways it fails, and the figures by hand."""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
from machines import ScriptedClock

from exporters.artifact.errors import NotAvailable, SlmcError
from targets.cpus.spec import Cpu
from targets.device import bandwidth, worker
from targets.device.clock import SystemClock, Timed
from targets.device.measurement import MeasureRequest, to_measured
from targets.device.native import LIBRARY_NAME, platform_name
from targets.measure.child import measure

ROOT = Path(worker.__file__).parents[2]
SMALL = MeasureRequest(prompt_tokens=6, generate_tokens=4, repetitions=3, chunk_tokens=4, native=False)
SMALL_CACHE = Cpu("test", "x86_64", "Some core", "avx2", l3_bytes=1 << 20)


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def test_the_empty_model_is_a_model():
    model = onnx.load_from_string(worker.EMPTY_MODEL)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Identity"] and not model.graph.initializer


def test_end_to_end(toy):
    measurement = measure(toy.artifact, toy.io, SMALL)
    assert measurement.repetitions == 3 and measurement.native_library is None
    assert len(measurement.prompt_wall_ms) == len(measurement.prompt_cpu_ms) == 3
    assert len(measurement.decode_wall_ms) == len(measurement.decode_cpu_ms) == 3 * 4
    assert len(measurement.reference_wall_ms) == 3
    assert min(measurement.decode_wall_ms) > 0 and measurement.load_ms > 0 and measurement.first_token_ms > 0
    assert measurement.state_bytes == 16 and measurement.random_tokens
    assert measurement.baseline.rss_bytes <= measurement.ended.peak_bytes
    assert to_measured(measurement, "host", 72).decode_tps > 1


def test_end_to_end_with_an_operator_library(toy):
    """A library that registers nothing is enough to see that it is found, loaded, and said."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    library = toy.artifact / "native" / platform_name() / LIBRARY_NAME
    library.parent.mkdir(parents=True)
    source = (
        "void *RegisterCustomOps(void *options, void *api) { return 0; }\n"
        'const char *slmc_isa_name(void) { return "testisa"; }\n'
    )
    subprocess.run([compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", library], input=source, text=True, check=True)
    measurement = measure(toy.artifact, toy.io, dataclasses.replace(SMALL, native=True, artifact_native=True))
    assert measurement.native_library == str(library.resolve()) and measurement.isa == "testisa"
    assert to_measured(measurement, "host", 72).native


def test_the_child_is_lean(toy):
    """Its peak is that of numpy and ONNX Runtime, though this process holds much more."""
    ballast = bytearray(os.urandom(1 << 20)) * 300
    measurement = measure(toy.artifact, toy.io, SMALL)
    assert measurement.ended.peak_bytes < 200 << 20 < len(ballast)


def test_the_child_loads_neither_torch_nor_onnx():
    code = (
        "import sys, targets.device.worker; "
        "print([m for m in ('torch', 'onnx', 'onnxscript', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run(python(code), capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_generation_alone(toy):
    measurement = measure(toy.artifact, toy.io, dataclasses.replace(SMALL, prompt_tokens=0))
    assert measurement.prompt_wall_ms == () and len(measurement.decode_wall_ms) == 12


def test_prompt_alone(toy):
    measurement = measure(toy.artifact, toy.io, dataclasses.replace(SMALL, generate_tokens=0))
    assert measurement.decode_wall_ms == () and len(measurement.prompt_wall_ms) == 3


def test_the_empty_runtime_has_all_that_measuring_needs():
    code = (
        "from targets.device.worker import SystemClock, timed_reference, weigh, weigh_empty_runtime\n"
        "before = weigh_empty_runtime(); timed_reference(SystemClock()); print(weigh().rss_bytes - before.rss_bytes)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert int(ran.stdout) < 256 << 10  # else 1.7 MB, which every model would seem to need


def test_scripted_clock_in_this_process(toy, monkeypatch):
    """Every timed call takes exactly one tick of each clock, whatever this machine does."""
    monkeypatch.setattr(bandwidth, "available_bytes", lambda: 32 << 20)
    monkeypatch.setattr(worker, "host_cpu", lambda: SMALL_CACHE)
    measurement = worker.measure_model(toy.artifact, "model.onnx", toy.io, SMALL, ScriptedClock())
    assert measurement.prompt_wall_ms == (2.0,) * 3 and measurement.prompt_cpu_ms == (0.5,) * 3
    assert measurement.decode_wall_ms == (2.0,) * 12 and measurement.decode_cpu_ms == (0.5,) * 12
    assert measurement.prompt_tps == 3000.0 and measurement.decode_tps == 500.0
    assert measurement.reference_wait == 4.0
    assert measurement.read_bandwidth_gbs == pytest.approx(16.777216)


def test_budget_ends_the_repetitions(toy, monkeypatch):
    monkeypatch.setattr(bandwidth, "available_bytes", lambda: 32 << 20)
    monkeypatch.setattr(worker, "host_cpu", lambda: SMALL_CACHE)
    request = dataclasses.replace(SMALL, repetitions=100, budget_s=0.001)
    measurement = worker.measure_model(toy.artifact, "model.onnx", toy.io, request, ScriptedClock())
    assert measurement.repetitions == 1 and len(measurement.decode_wall_ms) == 4


def test_every_repetition_begins_a_text(toy, monkeypatch):
    calls: list[str] = []
    monkeypatch.setattr(worker.Session, "reset", lambda self: calls.append("reset"))
    monkeypatch.setattr(worker.Session, "prefill", lambda self, tokens, chunk: calls.append(f"{tokens.size}/{chunk}"))
    monkeypatch.setattr(worker.Session, "step", lambda self, token: calls.append("step"))
    monkeypatch.setattr(worker, "timed_reference", lambda clock: calls.append("reference") or Timed(1, 1))
    request = dataclasses.replace(SMALL, repetitions=2, generate_tokens=1)
    worker.measure_model(toy.artifact, "model.onnx", toy.io, request, ScriptedClock())
    before_any_model, warm_up = ["reference"], ["reset", "6/4", "step"]
    assert calls == [*before_any_model, "step", *warm_up, *["reference", "reset", "6/4", "step"] * 2]


def test_whole_texts_are_texts_of_one_token_each(whole_toy, monkeypatch):
    """Where a text must come in one call: a prompt is one, and so is every token after it."""
    monkeypatch.setattr(worker, "timed_reference", lambda clock: Timed(1.0, 1.0))
    request = dataclasses.replace(SMALL, prompt_tokens=4, chunk_tokens=2, bandwidth=False)
    measurement = worker.measure_model(whole_toy.artifact, "model.onnx", whole_toy.io, request, ScriptedClock())
    assert (len(measurement.prompt_cpu_ms), len(measurement.decode_cpu_ms)) == (3, 12)


def test_given_tokens_are_read_in_order_again_and_again(toy, monkeypatch):
    seen: list[int] = []
    step = worker.Session.step
    monkeypatch.setattr(worker.Session, "step", lambda self, token: seen.append(token) or step(self, token))
    request = dataclasses.replace(SMALL, tokens=(2, 0, 1), prompt_tokens=0, repetitions=1)
    measurement = worker.measure_model(toy.artifact, "model.onnx", toy.io, request, ScriptedClock())
    # 1 first token, 3 to warm up, 4 that count
    assert seen == [2, 0, 1, 2, 0, 1, 2, 0] and not measurement.random_tokens


def test_damaged_model(toy):
    (toy.artifact / "model.onnx").write_bytes(b"this is no model")
    with pytest.raises(SlmcError, match="no ONNX model, or a damaged one"):
        measure(toy.artifact, toy.io, SMALL)


def test_kind_of_error_crosses_the_process(toy):
    model = onnx.load(toy.artifact / "model.onnx")
    model.graph.node[-1].op_type, model.graph.node[-1].domain = "Nothing", "ai.nowhere"
    model.opset_import.append(onnx.helper.make_opsetid("ai.nowhere", 1))
    (toy.artifact / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(NotAvailable, match="cannot run it") as caught:
        measure(toy.artifact, toy.io, SMALL)
    assert caught.value.exit_code == 5


def test_no_artifact(toy):
    with pytest.raises(SlmcError, match="no such file"):
        measure(toy.artifact / "nowhere", toy.io, SMALL)


def test_tokens_of_another_vocabulary(toy):
    with pytest.raises(SlmcError, match="token 50256 is not in the vocabulary"):
        measure(toy.artifact, toy.io, dataclasses.replace(SMALL, tokens=(50256,)))


def test_timeout_stops_the_real_worker(toy):
    with pytest.raises(NotAvailable, match=r"did not end within 1\.5 s and was stopped"):
        measure(toy.artifact, toy.io, dataclasses.replace(SMALL, generate_tokens=10**9, timeout_s=1.5))


def test_killed_child(toy):
    killed = python("import os, signal, sys; print('at layer 7', file=sys.stderr, flush=True);"
                    "os.kill(os.getpid(), signal.SIGKILL)")  # fmt: skip
    with pytest.raises(NotAvailable, match=r"killed by SIGKILL; .*memory runs out.*it last said: at layer 7"):
        measure(toy.artifact, toy.io, SMALL, command=killed)


def test_crashed_child(toy):
    crashed = python("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(NotAvailable, match=r"killed by SIGSEGV \(it last said: nothing on stderr\)"):
        measure(toy.artifact, toy.io, SMALL, command=crashed)


def test_failing_child_shows_its_last_line(toy):
    with pytest.raises(SlmcError, match="failed with exit code 1: ModuleNotFoundError: No module named 'nowhere'"):
        measure(toy.artifact, toy.io, SMALL, command=python("import nowhere"))


def test_child_that_says_nothing(toy):
    with pytest.raises(SlmcError, match="failed with exit code 0: nothing on stderr"):
        measure(toy.artifact, toy.io, SMALL, command=python("pass"))


def test_no_such_command(toy):
    with pytest.raises(NotAvailable, match="cannot start no-such-program"):
        measure(toy.artifact, toy.io, SMALL, command=("no-such-program",))


def test_stdout_holds_the_document_alone():
    code = (
        "import os; from targets.device import worker; out = worker._claim_stdout(); "
        "os.system('echo noise'); print('noise', flush=True); out.write('{}')"
    )
    done = subprocess.run(python(code), capture_output=True, text=True, check=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("{}", "noise\nnoise\n")


class Recording:
    """A session that notes what it is asked for."""

    io = SimpleNamespace(classes=None)

    def __init__(self):
        self.calls = []

    def reset(self):
        self.calls.append("reset")

    def prefill(self, tokens, chunk_tokens):
        self.calls.append(tokens.tolist())

    def step(self, token):
        self.calls.append(token)


def test_what_lies_before_a_test_is_read_and_not_timed():
    """A round that does not count, then two."""
    request = dataclasses.replace(SMALL, prompt_tokens=2, generate_tokens=1, repetitions=2, depth_tokens=3)
    session = Recording()
    prompts, decodes, *_ = worker._repeat(session, request, itertools.count(), SystemClock())
    rounds = [["reset", [[n, n + 1, n + 2]], [[n + 3, n + 4]], n + 5] for n in (0, 6, 12)]
    assert session.calls == [call for calls in rounds for call in calls] and (len(prompts), len(decodes)) == (2, 2)


def test_broken_job():
    assert worker.answer('{"artifact": 1}')["error"]["kind"] == "SlmcError"
