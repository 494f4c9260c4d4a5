"""A machine that is being probed over a connection: our packages and operators sent once, files as they are needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from exporters.artifact.parsing import parse
from targets.device.native import LIBRARY_NAME
from targets.device.probing import Probed, ProbeJob, Task
from targets.remote.device import NO_LIMITS, Device, DeviceLimits
from targets.remote.shipment import PACKAGES, packages, parcel

FILES: Final = "probe"
TIMEOUT_S: Final = 600.0


class ProbeVisit:
    """Implements `targets.cpus.probe.ProbedMachine`."""

    def __init__(
        self, device: Device, libraries: Mapping[str, Path], limits: DeviceLimits = NO_LIMITS, *, native: bool = True
    ) -> None:
        """Send what every task needs.

        Args:
            libraries: operators by platform; without one for its platform a machine is probed on stock operators.

        Raises:
            NotAvailable: no room there, or the connection was cut.
        """
        self._device, self._limits = device, limits
        self.library = libraries.get(device.platform) if native else None
        own = [parcel(self.library, f"{PACKAGES}/slmc_native/{LIBRARY_NAME}")] if self.library else []
        self._folder = device.push([*packages(), *own])
        self._there: set[str] = set()

    def put(self, files: Sequence[Path]) -> None:
        new = {file.name: file for file in files if file.name not in self._there}
        if new:
            self._device.push([parcel(file, f"{FILES}/{name}") for name, file in new.items()])
            self._there |= new.keys()

    def run(self, tasks: Sequence[Task]) -> Probed:
        job = ProbeJob(f"{self._folder}/{FILES}", tuple(tasks))
        document, _ = self._device.document("targets.device.probing", job, "probed", TIMEOUT_S, self._limits)
        found: Probed = parse(Probed, document, f"{self._device.transport.name}: probe")
        return found
