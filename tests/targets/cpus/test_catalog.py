"""Facts of CPUs: shipped files, files of one's own, and machines as Linux describes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporters.artifact.errors import SlmcError
from targets.cpus.catalog import cpu_names, named_cpu, probe_cpu
from targets.cpus.spec import FIGURES, Bandwidth, CostRow, Cpu, read_cpu, to_toml
from targets.device import host
from targets.device.host import isa_from_cpuinfo, temperature_c

GOOD = 'name = "mine"\narchitecture = "aarch64"\nmodel = "Some core"\nisa = "neon"\n'
COST = (
    'costs = [{operator = "QLinear", format = "int8", rows = 8, cols = 4, threads = 1, activation_bits = 0, '
    "working_set_bytes = 64, us = 2.5}]\n"
)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize("name", [name for name in cpu_names() if name != "host"])
def test_every_shipped_target(name):
    facts = named_cpu(name)
    assert facts.name == name
    assert facts.isa in {isa for isa, _ in host._ISA_BY_FLAGS}
    assert facts.architecture in ("x86_64", "aarch64")
    stated = {key for key in FIGURES if getattr(facts, key) is not None}
    assert stated == facts.sources.keys(), "every figure needs a source, and no source without its figure"


def test_names():
    assert cpu_names() == (
        "host", "aarch64-dotprod", "aarch64-generic", "intel-n100", "raspberry-pi-3", "raspberry-pi-4",
        "raspberry-pi-5", "raspberry-pi-zero-2-w", "x86-64-v2", "x86-64-v3", "x86-64-v4",
    )  # fmt: skip


def test_raspberry_pi_5():
    facts = named_cpu("raspberry-pi-5")
    assert (facts.cores, facts.l1d_bytes, facts.l2_bytes, facts.l3_bytes) == (4, 64 * 1024, 512 * 1024, 2 * 1024**2)
    assert facts.bandwidth_gbs is None and facts.last_cache_bytes == 2 * 1024**2


def test_unknown_target_lists_the_known():
    with pytest.raises(SlmcError, match=r"'cray' is unknown; known are host, aarch64-dotprod, .*, x86-64-v4"):
        named_cpu("cray")


def test_target_of_ones_own(tmp_path):
    write(tmp_path, {"mine.toml": GOOD + "cores = 2\nbandwidth_gbs = 4\n"})
    facts = named_cpu(str(tmp_path / "mine.toml"))
    assert facts == Cpu("mine", "aarch64", "Some core", "neon", cores=2, bandwidth_gbs=4.0)
    assert isinstance(facts.bandwidth_gbs, float) and facts.last_cache_bytes == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = ", r"mine\.toml: not a readable target file .*see 'slmc targets ls'"),
        (
            GOOD + "turbo = 1\n",
            "unknown key 'turbo'; allowed are architecture, bandwidth_gbs, bandwidths, clock_ghz",
        ),
        (GOOD.replace("isa", "# isa"), "key 'isa' is missing; needed are architecture, isa, model, name"),
        (GOOD + 'cores = "four"\n', r"mine\.toml: cores: expected int, found 'four'"),
        (GOOD + "cores = 0\n", "cores is 0; it must be positive"),
        (GOOD + "bandwidth_gbs = inf\n", "bandwidth_gbs is inf; it must be positive"),
        (GOOD + "bandwidth_gbs = nan\n", "bandwidth_gbs is nan; it must be positive"),
        (GOOD + "l2_bytes = 1.5\n", "l2_bytes: expected int, found 1.5"),
        (GOOD + "cores = true\n", "cores: expected int, found True"),
        (
            GOOD + "clock_ghz = 1500\n",
            "clock_ghz is 1500.0; allowed is 0.05 to 10; the unit is GHz, so 1.5",
        ),
        (
            GOOD + "l2_bytes = 512\n",
            "l2_bytes is 512; .*; the unit is bytes, so 524288 for 512 KiB",
        ),
        (GOOD + "l1d_bytes = 32\n", "l1d_bytes is 32; .* the unit is bytes"),
        (GOOD + "memory_bytes = 512\n", "memory_bytes is 512; .* the unit is bytes"),
        (GOOD + "bandwidth_gbs = 12800\n", "bandwidth_gbs is 12800.0; .* the unit is GB/s, so 3.6 for 3600 MB/s"),
        (GOOD + '[sources]\ncores = "a book"\n', "sources.cores names a source, but 'cores' is not stated"),
        (GOOD + "[sources]\ncores = 4\n", r"sources\.cores: expected str, found 4"),
        (GOOD + "bandwidths = 5\n", "bandwidths: expected a list, found int"),
        (GOOD + 'bandwidths = [{level = "L2"}]\n', r"bandwidths\[0\]: missing gbs, threads, working_set_bytes"),
        (
            GOOD + 'bandwidths = [{level = "L2", threads = 0, working_set_bytes = 9, gbs = 1.0}]\n',
            r"bandwidths\[0\]\.threads is 0; it must be finite and 1 or more",
        ),
        (GOOD + COST.replace("us = 2.5", "us = -2.5"), r"costs\[0\]\.us is -2.5; it must be"),
        (GOOD + COST.replace("rows = 8", "row = 8"), r"costs\[0\]: missing rows"),
    ],
)
def test_broken_files(tmp_path, text, said):
    write(tmp_path, {"mine.toml": text})
    with pytest.raises(SlmcError, match=said):
        read_cpu(tmp_path / "mine.toml")


def test_no_such_file():
    with pytest.raises(SlmcError, match=r"mine.toml: cannot be read .*'slmc targets ls'"):
        named_cpu("nowhere/mine.toml")


def test_probe_x86(tmp_path):
    cache = "sys/devices/system/cpu/cpu0/cache/"
    files = {
        "proc/cpuinfo": "processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\nflags\t\t: sse2 avx2 fma bmi2\n",
        "proc/meminfo": "MemTotal:        2048 kB\nMemFree: 1 kB\n",
    }
    for index, (level, kind, size) in enumerate([(1, "Data", "32K"), (1, "Instruction", "48K"), (2, "Unified", "1M")]):
        files |= {f"{cache}index{index}/{key}": f"{value}\n" for key, value in
                  (("level", level), ("type", kind), ("size", size))}  # fmt: skip
    facts = probe_cpu(write(tmp_path, files))
    assert (facts.model, facts.isa) == ("Some CPU @ 3 GHz", "avx2")
    assert (facts.l1d_bytes, facts.l2_bytes, facts.l3_bytes) == (32 * 1024, 1024 * 1024, None)
    assert facts.memory_bytes == 2048 * 1024 and facts.last_cache_bytes == 1024 * 1024


def test_probe_raspberry_pi(tmp_path):
    files = {
        "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd crc32\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n",
        "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
    }
    facts = probe_cpu(write(tmp_path, files))
    assert (facts.model, facts.isa) == ("Cortex-A72 (Raspberry Pi 4 Model B Rev 1.4)", "neon")
    assert facts.l1d_bytes is None and facts.memory_bytes is None


def test_probe_nothing_known(tmp_path):
    facts = probe_cpu(tmp_path)
    assert (facts.model, facts.isa, facts.memory_bytes) == ("unknown", "unknown", None)


@pytest.mark.parametrize(
    ("line", "isa"),
    [
        ("flags : sse2", "sse2"),
        ("flags : sse2 avx2 fma avx_vnni", "avx_vnni"),
        ("flags : avx2 fma avx512f avx512bw avx512vl", "avx512"),
        ("flags : avx2 fma avx512f avx512bw avx512vl avx512_vnni avx_vnni", "avx512_vnni"),
        ("Features : asimd asimddp", "neon_dotprod"),
        ("Features : asimd asimddp i8mm sve", "neon_i8mm"),
        ("", "unknown"),
    ],
)
def test_isa(line, isa):
    assert isa_from_cpuinfo(line) == isa


def test_temperature_is_that_of_the_hottest_zone(tmp_path):
    assert temperature_c(tmp_path) is None
    zones = "sys/class/thermal/thermal_zone"
    write(tmp_path, {f"{zones}0/temp": "41500\n", f"{zones}1/temp": "56250\n", f"{zones}2/temp": "broken\n"})
    assert temperature_c(tmp_path) == 56.25


def test_this_machine():
    facts = named_cpu("host")
    assert facts.name == "host" and facts.cores is not None and facts.cores >= 1


def test_costs_of_ones_own(tmp_path):
    write(tmp_path, {"mine.toml": GOOD + COST})
    assert read_cpu(tmp_path / "mine.toml").costs == (CostRow("QLinear", "int8", 8, 4, 1, 0, 64, 2.5),)


def test_a_target_survives_its_file(tmp_path):
    cpu = Cpu(
        "a \"quoted\" \\ name", "aarch64", "Some\tcore", "neon", clock_ghz=1.5, bandwidth_gbs=3.25,
        bandwidths=(Bandwidth("L2", 1, 4096, 20.5), Bandwidth("memory", 4, 1 << 26, 3.0)),
        costs=(CostRow("Add", "", 256, 1, 1, 0, 2048, 0.25),), sources={"clock_ghz": "a book"},
    )  # fmt: skip
    write(tmp_path, {"mine.toml": to_toml(cpu)})
    assert read_cpu(tmp_path / "mine.toml") == cpu
