"""The machine's condition, as /proc and /sys say it, and the advice that follows."""

from __future__ import annotations

from machines import write

from targets.device.machine import advice, device_facts


def test_a_board(tmp_path):
    frequencies = "sys/devices/system/cpu/cpu0/cpufreq/"
    files = {
        f"{frequencies}scaling_governor": "ondemand\n",
        f"{frequencies}scaling_cur_freq": "600000\n",
        f"{frequencies}cpuinfo_min_freq": "600000\n",
        f"{frequencies}cpuinfo_max_freq": "1800000\n",
        "proc/meminfo": "MemAvailable:       1000 kB\n",
        "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
    }
    facts = device_facts(write(tmp_path, files))
    assert (facts["governor"], facts["clock_mhz"], facts["clock_range_mhz"]) == ("ondemand", 600.0, "600 to 1800")
    assert (facts["free_memory_bytes"], facts["huge_pages"], facts["energy_counter"]) == (1_024_000, "madvise", False)
    assert [line for line in advice(facts) if "echo performance" in line]


def test_a_machine_that_says_nothing(tmp_path):
    facts = device_facts(tmp_path)
    assert facts.pop("energy_counter") is False and set(facts.values()) == {None}
    assert "clock cannot be seen" in advice(facts)[0]
