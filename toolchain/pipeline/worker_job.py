"""What workers of a search are given: the job as data, and the files that it reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from targets.device.verify import file_sha256
from toolchain.files.workspace import digest_of
from toolchain.pipeline.calibrate import Calibrated
from toolchain.pipeline.job import Job
from toolchain.pipeline.worker import INPUTS, WorkerJob, WorkFile
from toolchain.transform.transformation import Transformation


def plain_job(job: Job, folder: Path) -> WorkerJob:
    """What workers must know of a job before it is calibrated."""
    return _described(job, folder, None)


def worker_job(calibrated: Calibrated, folder: Path) -> WorkerJob:
    """What workers must know of a job that is calibrated."""
    return _described(calibrated.job, folder, calibrated.job.transformations or ())


def _described(job: Job, folder: Path, transformations: tuple[Transformation, ...] | None) -> WorkerJob:
    spec = job.spec.model_dump(mode="json", exclude_none=True)
    spec |= {name: str(Path(spec[name]).resolve()) for name in INPUTS if name in spec}
    spec |= {"workers": 1, "native": [], "runtime": []}
    spec.pop("cluster", None)
    if memory := spec.pop("worker_memory", None):
        spec["max_build_memory"] = memory
    files = tuple(_files(job, spec, folder.resolve()))
    plain = transformations is None
    key = digest_of({"spec": spec, "files": [f.sha256 for f in files], "inputs": job.inputs(), "plain": plain})
    return WorkerJob(
        key=key, folder=str(folder.resolve()), spec=json.dumps(spec), model_sha256=job.model.sha256,
        transformations=transformations, files=files,
    )  # fmt: skip


def _files(job: Job, spec: dict[str, Any], folder: Path) -> Iterator[WorkFile]:
    for role in INPUTS:
        path = Path(spec[role]) if role in spec else None
        if path is not None:
            inside = sorted(x for x in path.rglob("*") if x.is_file()) if path.is_dir() else [path]
            for file in inside:
                yield _work_file(role, str(file.relative_to(path)) if path.is_dir() else "", file)
    for file in sorted(folder.glob("*.safetensors")):
        yield _work_file("work", file.name, file)


def _work_file(role: str, name: str, path: Path) -> WorkFile:
    return WorkFile(role, name, str(path), path.stat().st_size, file_sha256(path))
