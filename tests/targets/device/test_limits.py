"""A process that needs more memory than it may have is stopped, by watching or by the kernel; another is not."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from exporters.artifact.errors import ConstraintsNotMet
from exporters.artifact.manifest import Measured, Percentiles, read_manifest
from targets.device.limits import Cgroup, CoresOnly, Watched, confine, forecast_bytes, make_cgroup, refuse_by_forecast

MB = 10**6


def started(confinement: object, code: str) -> subprocess.CompletedProcess[str]:
    """A Python process inside a confinement, until its end."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code], stdout=subprocess.PIPE, text=True, preexec_fn=confinement.enter
    )
    confinement.watch(process.pid)
    stdout, _ = process.communicate(timeout=30)
    return subprocess.CompletedProcess([], process.returncode, stdout)


def test_watched_and_stopped():
    confinement = Watched(60 * MB, None)
    done = started(
        confinement, "import time; b = bytearray(80_000_000); b[::4096] = b'1' * len(b[::4096]); time.sleep(9)"
    )
    assert done.returncode == -signal.SIGKILL
    found = confinement.found()
    assert found["killed"] and 60 * MB < found["peak_bytes"] < 120 * MB and found["limit_bytes"] == 60 * MB


def test_watched_and_left_alone():
    """What is only reserved does not count, as on a device."""
    confinement = Watched(60 * MB, None)
    done = started(confinement, "import mmap, time; m = mmap.mmap(-1, 500_000_000); time.sleep(0.2); print('done')")
    found = confinement.found()
    assert (done.returncode, done.stdout) == (0, "done\n") and not found["killed"] and 0 < found["peak_bytes"] < 60 * MB


def test_mapped_files_count(tmp_path):
    """Mapped weights are in memory once they are read."""
    (tmp_path / "weights").write_bytes(bytes(80 * MB))
    code = (
        f"import mmap, time; f = open({str(tmp_path / 'weights')!r}, 'rb'); "
        "m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); sum(m[::4096]); time.sleep(9)"
    )
    confinement = Watched(60 * MB, None)
    assert started(confinement, code).returncode == -signal.SIGKILL and confinement.found()["killed"]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core cannot be made fewer")
def test_cores():
    code = "import os; print(len(os.sched_getaffinity(0)))"
    assert started(CoresOnly(1), code).stdout == "1\n" and CoresOnly(1).found() is None
    assert started(Watched(500 * MB, 1), code).stdout == "1\n"
    assert int(started(CoresOnly(None), code).stdout) == len(os.sched_getaffinity(0))


def hierarchy(root: Path) -> Path:
    """A folder that looks like a control group of version 2 whose memory is ours to limit."""
    root.mkdir()
    (root / "cgroup.subtree_control").write_text("cpu memory pids\n")
    return root


def test_kernel_group_is_set_up_and_read(tmp_path):
    """Against a folder that stands for the kernel's."""
    folder = make_cgroup(64 * MB, hierarchy(tmp_path / "cgroup"))
    assert folder is not None
    assert {p.name: p.read_text() for p in folder.iterdir()} == {"memory.max": "64000000", "memory.swap.max": "0"}
    group = Cgroup(folder, 64 * MB, None)
    group.enter()
    assert (folder / "cgroup.procs").read_text() == str(os.getpid())
    assert group.found()["peak_bytes"] is None and not group.found()["killed"]
    (folder / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
    (folder / "memory.peak").write_text("64000000\n")
    assert group.found()["killed"] and group.found()["peak_bytes"] == 64 * MB


@pytest.mark.parametrize("control", [None, "cpu pids"])
def test_no_group_of_ours(tmp_path, control):
    root = tmp_path / "cgroup"
    root.mkdir()
    if control is not None:
        (root / "cgroup.subtree_control").write_text(control)
    assert make_cgroup(MB, root) is None
    with confine(MB, None, root) as confinement:
        assert isinstance(confinement, Watched)
    with confine(None, 1, root) as confinement:
        assert isinstance(confinement, CoresOnly)
    assert [p.name for p in root.iterdir()] == (["cgroup.subtree_control"] if control else [])


def test_forecast(packed):
    """40 MB of model beside 50 MB of runtime; a model never measured is counted by its file alone."""
    manifest = read_manifest(packed.artifact)
    sizes = dataclasses.replace(manifest.bytes, file=30 * MB, states=MB)
    manifest = dataclasses.replace(manifest, bytes=sizes)
    assert forecast_bytes(manifest) == (0, 31 * MB)
    with pytest.raises(ConstraintsNotMet, match=r"--limit-memory 30\.0 MB: by forecast 31\.0 MB"):
        refuse_by_forecast(manifest, 30 * MB)
    manifest = dataclasses.replace(manifest, measured=measured(peak=90 * MB, baseline=50 * MB))
    assert forecast_bytes(manifest) == (50 * MB, 40 * MB)
    assert forecast_bytes(dataclasses.replace(manifest, bytes=dataclasses.replace(sizes, file=60 * MB))) == (
        50 * MB, 61 * MB,
    )  # fmt: skip
    refuse_by_forecast(manifest, 90 * MB)
    refuse_by_forecast(manifest, None)
    with pytest.raises(ConstraintsNotMet, match=r"90\.0 MB are needed \(40\.0 MB for the model, 50\.0 MB") as error:
        refuse_by_forecast(manifest, 32 * MB)
    assert error.value.exit_code == 4 and "--force" in str(error.value)


def measured(peak: int, baseline: int) -> Measured:
    return Measured(
        "host", "A CPU", "avx2", 1, "1.24", True, 64, 1.0, Percentiles(1.0, 1.0, 1.0, 1.0), 1.0, 1.0, peak, peak,
        baseline, 1, 1, 1.0, 1.0,
    )  # fmt: skip
