"""Text to token ids by slmc-run's own tokenizers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np

from exporters.artifact.errors import NotAvailable, SlmcError

_TIMEOUT_S = 600


def encode(program: Path, tokenizer: Path, text: str) -> tuple[int, ...]:
    """The ids of a text by a tokenizer.json, without what it says to put around texts.

    Raises:
        SlmcError: the program does not read that tokenizer; the text says what it does not know.
        NotAvailable: it cannot be started.
    """
    command = (str(program), str(tokenizer), "--encode")
    try:
        done = subprocess.run(command, input=text.encode(), capture_output=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotAvailable(f"{program}: {error}") from error
    if done.returncode != 0:
        raise SlmcError(done.stderr.decode("utf-8", "replace").strip().removeprefix("error: "))
    return tuple(np.frombuffer(done.stdout, "<i4").tolist())
