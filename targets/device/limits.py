"""A smaller device imposed on a process: so much memory, so many cores, and whether that was enough."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Protocol

from exporters.artifact.errors import ConstraintsNotMet
from exporters.artifact.manifest import Manifest, Measured
from exporters.artifact.runtimes import ONNXRUNTIME, SLMC_RUN
from targets.device.memory import kib_lines
from targets.device.quantities import bytes_text

OWN_RUNTIME_BYTES: Final = 3_000_000
"""What slmc-run takes beside the model's file and states at most; the tests hold it to that."""

CGROUP_ROOT: Final = Path("/sys/fs/cgroup")
WATCH_S: Final = 0.002
_PROC: Final = Path("/proc")


class Confinement(Protocol):
    """Limits around one process."""

    def enter(self) -> None:
        """Called in the new process before its program starts."""

    def watch(self, pid: int) -> None:
        """Called in the parent once the process runs."""

    def found(self) -> dict[str, Any] | None:
        """How memory was limited and what came of it, after the process has ended; None without a limit on memory.

        method, limit_bytes, peak_bytes (None if not known), killed: the process was ended because it needed more.
        """


class CoresOnly:
    """No limit on memory."""

    def __init__(self, cores: int | None) -> None:
        self._cores = cores

    def enter(self) -> None:
        keep_cores(self._cores)

    def watch(self, pid: int) -> None:
        """There is nothing to watch."""

    def found(self) -> dict[str, Any] | None:
        return None


class Watched:
    """Memory limited by watching: the process is killed as soon as what it holds in memory is over the limit.

    What counts is the resident set with mapped weights and program text, which is what the process has in memory.
    RLIMIT_DATA and RLIMIT_AS count addresses instead: the runtime reserves several times what it touches, mapped
    weights count in one of the two only, and neither says what a device needs.
    """

    def __init__(self, memory_bytes: int, cores: int | None, proc: Path = _PROC) -> None:
        self._limit_bytes, self._cores, self._proc = memory_bytes, cores, proc
        self._peak_bytes, self._killed = 0, False
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def enter(self) -> None:
        keep_cores(self._cores)

    def watch(self, pid: int) -> None:
        self._thread = threading.Thread(target=self._watch, args=(pid,), daemon=True)
        self._thread.start()

    def _watch(self, pid: int) -> None:
        folder = self._proc / str(pid)
        while not self._over.wait(WATCH_S):
            # The kernel's high-water mark also tells what happened between two looks.
            mark = kib_lines(_text(folder / "status")).get("VmHWM")
            if mark is None:  # the process has ended
                return
            self._peak_bytes = max(self._peak_bytes, mark)
            if self._peak_bytes > self._limit_bytes:
                self._killed = True
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                return

    def found(self) -> dict[str, Any] | None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        return {
            "method": "watched: resident memory with mapped weights, every 2 ms",
            "limit_bytes": self._limit_bytes,
            "peak_bytes": self._peak_bytes or None,
            "killed": self._killed,
        }


class Cgroup:
    """Memory limited by the kernel: a control group (version 2) without swap, around the process alone.

    Mapped weights count as memory here too, but the kernel may drop and read them again instead of killing: a model
    that does not quite fit runs, slowly, as it would on the device.
    """

    def __init__(self, folder: Path, memory_bytes: int, cores: int | None) -> None:
        self._folder, self._limit_bytes, self._cores = folder, memory_bytes, cores

    def enter(self) -> None:
        (self._folder / "cgroup.procs").write_text(str(os.getpid()))
        keep_cores(self._cores)

    def watch(self, pid: int) -> None:
        """The kernel watches."""

    def found(self) -> dict[str, Any] | None:
        events = dict(line.split() for line in _text(self._folder / "memory.events").splitlines())
        peak = _text(self._folder / "memory.peak").strip()  # Linux 5.19 or later
        return {
            "method": "control group (version 2), without swap",
            "limit_bytes": self._limit_bytes,
            "peak_bytes": int(peak) if peak.isdigit() else None,
            "killed": int(events.get("oom_kill", 0)) > 0,
        }


@contextlib.contextmanager
def confine(memory_bytes: int | None, cores: int | None, root: Path = CGROUP_ROOT) -> Iterator[Confinement]:
    """The best confinement that this machine offers; None is no limit."""
    if memory_bytes is None:
        yield CoresOnly(cores)
        return
    folder = make_cgroup(memory_bytes, root)
    if folder is None:
        yield Watched(memory_bytes, cores)
        return
    try:
        yield Cgroup(folder, memory_bytes, cores)
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()


def make_cgroup(memory_bytes: int, root: Path) -> Path | None:
    """A new group below `root` with this limit, or None where that is not ours to make."""
    if "memory" not in _text(root / "cgroup.subtree_control").split():
        return None
    folder = root / f"slmc-{uuid.uuid4().hex}"
    try:
        folder.mkdir()
    except OSError:
        return None
    try:
        (folder / "memory.max").write_text(str(memory_bytes))
        (folder / "memory.swap.max").write_text("0")
    except OSError:
        with contextlib.suppress(OSError):
            folder.rmdir()
        return None
    return folder


def measurements(manifest: Manifest) -> tuple[Measured, ...]:
    """What was measured for an artifact: on the build's target, and with slmc-run here, where it goes along."""
    found = (manifest.measured, manifest.slmc_run.measured if manifest.slmc_run else None)
    return tuple(measured for measured in found if measured is not None)


def forecast_bytes(manifest: Manifest, runtime: str = ONNXRUNTIME) -> tuple[int, int]:
    """(an empty runtime, the model beside it), in bytes, as far as the manifest knows; the runtime 0 if it does not.

    The model needs its file and its states at least, and what it had in memory when it was measured.
    """
    model = manifest.bytes.file + manifest.bytes.states
    own = runtime == SLMC_RUN
    measured = next((m for m in measurements(manifest) if (m.runtime == SLMC_RUN) == own), None)
    if measured is None:
        return OWN_RUNTIME_BYTES if own else 0, model
    return measured.rss_baseline_bytes, max(model, measured.rss_peak_bytes - measured.rss_baseline_bytes)


def refuse_by_forecast(manifest: Manifest, memory_bytes: int | None, runtime: str = ONNXRUNTIME) -> None:
    """Refuse, before anything runs, a model that cannot fit into a limit.

    Raises:
        ConstraintsNotMet: it needs more, by the figures measured when it was built.
    """
    empty, model = forecast_bytes(manifest, runtime)
    what = SLMC_RUN if runtime == SLMC_RUN else "Python and ONNX Runtime"
    if memory_bytes is not None and empty + model > memory_bytes:
        raise ConstraintsNotMet(
            f"--limit-memory {bytes_text(memory_bytes)}: by forecast {bytes_text(empty + model)} are needed "
            f"({bytes_text(model)} for the model, {bytes_text(empty)} for {what} without one); "
            "use a smaller model, allow more, or try it all the same with --force"
        )


def keep_cores(cores: int | None) -> None:
    """Leave this process the first so many of the cores that it may use."""
    if cores is not None:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
