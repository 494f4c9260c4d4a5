"""A machine that is being probed over a connection: what runs there sent once, graphs as they are needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from exporters.artifact.parsing import parse
from targets.device.host import known_core
from targets.device.probing import Probed, ProbeJob, Task
from targets.remote.device import NO_LIMITS, Device, DeviceLimits
from targets.remote.shipment import parcel
from targets.runtime.program import PROBED

FILES: Final = "probe"
TIMEOUT_S: Final = 600.0


class ProbeVisit:
    """Implements `targets.cpus.probe.ProbedMachine`, on the runtime of the visit's agent."""

    def __init__(self, device: Device, libraries: Mapping[str, Path], limits: DeviceLimits = NO_LIMITS) -> None:
        """Send what every task needs.

        Args:
            libraries: operators by platform; without one for its platform a machine is probed on stock operators.

        Raises:
            NotAvailable: no room there, or the connection was cut.
        """
        self._device, self._limits = device, limits
        self.library = libraries.get(device.platform)
        self._folder = device.push_tools(self.library)
        self._there: set[str] = set()

    def put(self, files: Sequence[Path]) -> None:
        new = {file.name: file for file in files if file.name not in self._there}
        if new:
            self._device.push([parcel(file, f"{FILES}/{name}") for name, file in new.items()])
            self._there |= new.keys()

    def run(self, tasks: Sequence[Task]) -> Probed:
        job = ProbeJob(f"{self._folder}/{FILES}", tuple(tasks))
        document, _ = self._device.document("targets.device.probing", job, PROBED, TIMEOUT_S, self._limits)
        transport = self._device.transport
        found: Probed = parse(Probed, document, f"{transport.name}: probe")
        cpu = dataclasses.replace(found.facts.cpu, model=known_core(found.facts.cpu.model))
        runtime = found.facts.runtime if transport.speed_counts else f"{found.facts.runtime} under {transport.name}"
        return dataclasses.replace(found, facts=dataclasses.replace(found.facts, cpu=cpu, runtime=runtime))
