"""Workers: the same plan to the byte, one that dies is replaced, and files reach those that do not see them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from exporters.artifact.errors import NotAvailable, SlmcError
from toolchain.compress.catalog import compress
from toolchain.files.workspace import workspace
from toolchain.pipeline import dask_client, worker
from toolchain.pipeline.build import find
from toolchain.pipeline.calibrate import Calibrated, Notifier, calibrate, evaluator_of
from toolchain.pipeline.cluster import DaskWorkers
from toolchain.pipeline.job import prepare
from toolchain.pipeline.spec import resolve
from toolchain.pipeline.worker import Answer, Lacking, WorkerJob, adopt, carry_out, receive
from toolchain.pipeline.worker_job import plain_job, worker_job
from toolchain.search import evaluator

SILENT = Notifier(progress=lambda stage, done, total: None, say=lambda text: None)


def given(model: Path, output: Path, **more: Any) -> dict[str, Any]:
    return {"model": model, "output": output, "effort": "quick", "formats": ("int8", "int4-g32"), **more}


def plan_bytes(model: Path, output: Path, said: list[str] | None = None, **more: Any) -> bytes:
    notifier = dataclasses.replace(SILENT, say=(said if said is not None else []).append)
    find(prepare(resolve(given(model, output, max_drop="5%", **more), None, ())), resume=False, notifier=notifier)
    return output.read_bytes()


def test_two_workers_find_the_same_plan_and_one_that_is_killed_is_replaced(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    alone = plan_bytes(tiny_model, tmp_path / "alone.json")
    take, killed = DaskWorkers._take, list[int]()

    def take_and_kill(workers: DaskWorkers, kind: str, answer: Answer, address: str) -> None:
        take(workers, kind, answer, address)
        if kind == "score" and not killed:
            killed.extend(workers._client.run(os.getpid, workers=[address]).values())
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(DaskWorkers, "_take", take_and_kill)
    said: list[str] = []
    together = plan_bytes(tiny_model, tmp_path / "together.json", said, workers=2, worker_memory="2GB")
    assert together == alone and len(killed) == 1
    assert any(line.startswith("--workers 2: 2 at work") for line in said)
    assert any("tasks" in line and "held" in line for line in said)
    assert not list(tmp_path.glob("*.slmc-work"))


@pytest.fixture
def calibrated(tiny_model: Path, tmp_path: Path) -> Any:
    """A job with its work folder, ready to be searched."""
    job = prepare(resolve(given(tiny_model, tmp_path / "out"), None, ()))
    with workspace(tmp_path / "out", job.inputs(), resume=False) as folder:
        yield calibrate(job, folder, SILENT), folder


def elsewhere(job: WorkerJob, monkeypatch: pytest.MonkeyPatch, place: Path) -> WorkerJob:
    """The job as a worker knows it that does not see its files, and keeps what it is sent in `place`."""
    monkeypatch.setattr(worker, "_private", lambda: place)
    monkeypatch.setattr(worker, "_is_shared", lambda job: False)
    monkeypatch.setattr(worker, "_OPEN", {})
    return dataclasses.replace(job, folder="/nowhere")


def send(job: WorkerJob, wanted: Lacking, piece: int = 50_000) -> None:
    for file in job.files:
        if file.sha256 in wanted.sha256:
            data = Path(file.path).read_bytes()
            for offset in range(0, max(len(data), 1), piece):
                receive(file.sha256, offset, data[offset : offset + piece])


def test_a_worker_that_sees_no_files_is_sent_them_once(
    calibrated: tuple[Calibrated, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made, folder = calibrated
    job = elsewhere(worker_job(made, folder), monkeypatch, tmp_path / "private")
    path, options = next((p, o) for p, o in made.job.problem.options.items() if len(o) > 1)
    lacking = carry_out(job, "loss", [(path, options[0])])
    assert isinstance(lacking, Lacking) and {f.sha256 for f in job.files} == set(lacking.sha256)
    assert {"config.json", "statistics.safetensors"} <= {f.name for f in job.files}
    send(job, lacking)
    answer = carry_out(job, "loss", [(path, options[0])])
    assert isinstance(answer, Answer) and answer.peak_bytes > 0
    here = evaluator_of(made, folder)
    assert answer.values == (here.loss(path, options[0]),)
    file = made.layers.file(path, options[0])
    assert answer.made.keys() == {file.name} and len(answer.made[file.name]) == file.stat().st_size
    recipe = {p: o[0] for p, o in made.job.problem.options.items()}
    asked = carry_out(job, "score", [recipe])
    assert isinstance(asked, Lacking) and not asked.sha256 and file.name not in asked.layers
    name = asked.layers[0]
    (other,) = (p for p in recipe if made.layers.file(p, recipe[p]).name == name)
    made.layers.encoded(other, recipe[other])
    data = (made.layers.folder / name).read_bytes()
    receive(hashlib.sha256(data).hexdigest(), 0, data)
    adopt(job, {name: hashlib.sha256(data).hexdigest()}, asked.layers)
    with monkeypatch.context() as patch:
        compressed = []
        whole = compress
        patch.setattr(evaluator, "compress", lambda *a: compressed.append(a) or whole(*a))
        scored = carry_out(job, "score", [recipe])
    assert isinstance(scored, Answer) and scored.values == (dataclasses.asdict(here.score(recipe)),)
    assert len(compressed) == len(asked.layers) - 1, "what another compressed came as it was"


def test_statistics_come_in_parts_from_elsewhere(
    calibrated: tuple[Calibrated, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The same bytes as those that this process gathered, which sees the folder, and from one that does not."""
    made, folder = calibrated
    whole = (folder / "statistics.safetensors").read_bytes()
    (folder / "statistics.safetensors").unlink()
    monkeypatch.setattr(worker, "_OPEN", {})
    answers: list[Any] = []

    def elsewhere_in(job: WorkerJob, parts: Sequence[str]) -> list[bytes]:
        for part in parts:
            found = carry_out(job, "statistics", [part])
            if isinstance(found, Lacking):
                send(job, found)
                found = carry_out(job, "statistics", [part])
            assert isinstance(found, Answer)
            answers.append(found.values[0])
        return [a if isinstance(a, bytes) else (folder / a).read_bytes() for a in answers[-len(parts) :]]

    plain = plain_job(made.job, folder)
    calibrate(made.job, folder, SILENT, lambda parts: elsewhere_in(plain, parts))
    assert (folder / "statistics.safetensors").read_bytes() == whole and answers == [
        "statistics.hessian", "statistics.fisher"
    ]  # fmt: skip
    (folder / "statistics.safetensors").unlink()
    hidden = elsewhere(plain, monkeypatch, tmp_path / "private")
    calibrate(made.job, folder, SILENT, lambda parts: elsewhere_in(hidden, parts))
    assert (folder / "statistics.safetensors").read_bytes() == whole and isinstance(answers[-1], bytes)


def test_a_file_that_arrives_altered_is_told(
    calibrated: tuple[Calibrated, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made, folder = calibrated
    job = elsewhere(worker_job(made, folder), monkeypatch, tmp_path / "private")
    lacking = carry_out(job, "score", [{}])
    assert isinstance(lacking, Lacking)
    send(job, lacking)
    altered = tmp_path / "private" / "files" / job.files[0].sha256
    altered.write_bytes(bytes(len(altered.read_bytes())))
    with pytest.raises(SlmcError, match="received it altered; repeat the command with --resume"):
        carry_out(job, "score", [{}])


def test_another_model_in_its_place(
    calibrated: tuple[Calibrated, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Path
) -> None:
    made, folder = calibrated
    monkeypatch.setattr(worker, "_OPEN", {})
    job = dataclasses.replace(worker_job(made, folder), model_sha256="0" * 64)
    with pytest.raises(SlmcError, match="a worker reads another model"):
        carry_out(job, "score", [{}])


def test_who_did_the_work_is_no_part_of_the_result(tiny_model: Path, tmp_path: Path) -> None:
    from toolchain.pipeline.spec import result_options, to_yaml

    spec = resolve(given(tiny_model, tmp_path, workers=4, cluster="tcp://a:1", worker_memory="4GB"), None, ())
    assert not {"workers", "cluster", "worker_memory"} & {*result_options(spec), *to_yaml(spec).split(":")}


def test_what_is_missing_is_said_in_one_line(
    fails: Callable[..., None], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("search", tiny_model, "-q", "--effort", "quick", "--formats", "int8", "-o", tmp_path / "plan.json")
    fails((*command, "--worker-memory", "4"), 2, "--worker-memory: '4' has no unit")
    with monkeypatch.context() as without:

        def absent(module: str) -> Any:
            raise ModuleNotFoundError(module)

        without.setattr(dask_client, "dask_module", absent)
        fails((*command, "--workers", "2"), 5, "--workers 2: dask.distributed is not installed", "slmc[cluster]")
        fails((*command, "--cluster", "tcp://a:1"), 5, "--cluster tcp://a:1: dask.distributed is not installed")
    pytest.importorskip("distributed")
    monkeypatch.setattr(dask_client, "CONNECT_S", 1)
    fails((*command, "--cluster", "tcp://127.0.0.1:9"), 5, "no scheduler answers there", "dask scheduler")
    assert json.loads((tmp_path / "plan.json.slmc-work" / "inputs.json").read_text()), "what was paid for is kept"
    shutil.rmtree(tmp_path / "plan.json.slmc-work")


def test_a_scheduler_that_ends_leaves_a_folder_to_go_on_from() -> None:
    distributed = pytest.importorskip("distributed")
    with pytest.raises(NotAvailable, match=r"scheduler of the workers has ended.*--resume"), dask_client.explained():
        raise distributed.comm.CommClosedError("in <TCP>: Stream is closed")
    with pytest.raises(NotAvailable, match="may need more memory; give --worker-memory"), dask_client.explained():
        raise distributed.KilledWorker("task", None, 9)
