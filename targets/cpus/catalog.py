"""What is known of a CPU: this machine's, probed, or a named target's, read from its TOML file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Final

from exporters.artifact.errors import SlmcError
from targets.cpus.spec import Cpu, read_cpu
from targets.device.host import host_cpu

HOST: Final = "host"
_FACTS = Path(__file__).resolve().parent
_ROOT = Path("/")


def cpu_names() -> tuple[str, ...]:
    """Names that `named_cpu` knows: this machine, then the files shipped."""
    return (HOST, *sorted(path.stem for path in _FACTS.glob("*.toml")))


def named_cpu(name: str) -> Cpu:
    """This machine for 'host', a shipped target by its name, or a target of one's own by the path of its .toml file.

    Raises:
        SlmcError: unknown name, or a file that is broken.
    """
    if name == HOST:
        return probe_cpu()
    if name in cpu_names():
        return read_cpu(_FACTS / f"{name}.toml")
    if name.endswith(".toml"):
        return read_cpu(Path(name))
    raise SlmcError(f"target {name!r} is unknown; known are {', '.join(cpu_names())}, or the path of a .toml file")


def probe_cpu(root: Path = _ROOT) -> Cpu:
    """This machine, from /proc and /sys below `root`; the bandwidth is left out (`bandwidth.read_bandwidth_gbs`)."""
    return Cpu(name=HOST, **dataclasses.asdict(host_cpu(root)))
