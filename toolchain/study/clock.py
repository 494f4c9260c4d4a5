"""CPU seconds of a piece of work that may be interrupted."""

from __future__ import annotations

import time
from pathlib import Path


class CpuClock:
    """CPU seconds spent on a piece of work, over all processes that worked on it."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._before = float(file.read_text()) if file.is_file() else 0.0
        self._began = time.process_time()

    def note(self) -> float:
        seconds = self._before + time.process_time() - self._began
        self.file.write_text(repr(seconds))
        return seconds
