"""The scale: the kernel's accounts as literal texts, and a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from exporters.artifact.errors import NotAvailable
from targets.device.memory import Memory, available_bytes, memory_from, weigh

ROLLUP = """56004dc42000-7ffe005c6000 ---p 00000000 00:00 0                          [rollup]
Rss:                1752 kB
Pss:                 369 kB
Pss_Anon:            112 kB
Shared_Clean:       1596 kB
Shared_Dirty:          0 kB
Private_Clean:        44 kB
Private_Dirty:       112 kB
Anonymous:           110 kB
Swap:                  0 kB
"""
STATUS = "Name:\tslmc\nVmPeak:\t    9000 kB\nVmHWM:\t    1764 kB\nVmRSS:\t    1764 kB\nThreads:\t1\n"


def test_memory_from_text():
    assert memory_from(ROLLUP, STATUS) == Memory(
        rss_bytes=1752 * 1024,
        pss_bytes=369 * 1024,
        private_bytes=156 * 1024,
        anonymous_bytes=110 * 1024,
        file_backed_bytes=1642 * 1024,
        peak_bytes=1764 * 1024,
    )


def test_peak_is_never_below_the_exact_rss():
    assert memory_from(ROLLUP, STATUS.replace("1764", "1700")).peak_bytes == 1752 * 1024


@pytest.mark.parametrize(("rollup", "status", "name"), [("", STATUS, "Rss"), (ROLLUP, "", "VmHWM")])
def test_a_kernel_that_says_less(rollup, status, name):
    with pytest.raises(NotAvailable, match=f"this kernel does not say {name}"):
        memory_from(rollup, status)


def test_no_proc(tmp_path):
    with pytest.raises(NotAvailable, match="cannot weigh this process"):
        weigh(tmp_path)
    assert available_bytes(tmp_path / "meminfo", tmp_path) is None


def test_available(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 8 kB\nMemAvailable:       3 kB\n")
    assert available_bytes(tmp_path / "meminfo", tmp_path) == 3072


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="Linux only")
def test_a_process_grows_by_what_it_touches():
    script = """
import mmap
from targets.device.memory import weigh
before, block = weigh(), mmap.mmap(-1, 32 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for _ in range(8192):
    block.write(b"1" * 4096)
after = weigh()
print(after.anonymous_bytes - before.anonymous_bytes, before.private_bytes, before.rss_bytes, after.peak_bytes)
"""
    # a process of its own: this one's allocator hands out pages that it touched long ago
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    grown_bytes, private_bytes, rss_bytes, peak_bytes = map(int, run.stdout.split())
    assert 31 << 20 <= grown_bytes <= 36 << 20
    assert peak_bytes >= rss_bytes + (31 << 20) > private_bytes
