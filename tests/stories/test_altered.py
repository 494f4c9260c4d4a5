"""An altered artifact is refused by every command that opens one, and by a device on arrival, before anything runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from targets.device.verify import SUMS_NAME, file_sha256

Fails = Callable[..., None]


def byte(folder: Path) -> None:
    data = bytearray((folder / "model.onnx.data").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.onnx.data").write_bytes(data)


def code(folder: Path) -> None:
    (folder / "sitecustomize.py").write_text("raise SystemExit('it ran')")


def link(folder: Path) -> None:
    (folder / "run.py").unlink()
    (folder / "run.py").symlink_to("/etc/hostname")


def manifest(folder: Path, **values: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    lines = [line for line in (folder / SUMS_NAME).read_text().splitlines() if not line.endswith("manifest.json")]
    (folder / SUMS_NAME).write_text("\n".join([*lines, f"{file_sha256(path)}  manifest.json"]) + "\n")


ALTERED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a byte": (byte, "model.onnx.data: the contents differ"),
    "a file too much": (code, "sitecustomize.py: no part of this artifact"),
    "a link": (link, "run.py: "),
    "no weights": (lambda f: (f / "model.onnx.data").unlink(), "model.onnx.data is missing"),
    "a path that climbs out": (
        lambda f: manifest(f, files={"../../x": {"bytes": 1, "sha256": "00"}}), "'../../x' leaves the artifact",
    ),
    "a newer version": (lambda f: manifest(f, schema_version=99), "schema_version is 99, this slmc reads 1"),
    "another schema": (lambda f: manifest(f, licence="MIT"), "unknown licence"),
}  # fmt: skip
COMMANDS: dict[str, tuple[str, ...]] = {
    "inspect": (),
    "validate": (),
    "validate there": ("--on", "local"),
    "eval": ("--data", __file__),
    "bench": (),
    "generate": (),
    "report": (),
    "gate": ("--update-baseline", "--baseline", "/tmp/never-written.json"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_refused(artifact: Path, tmp_path: Path, fails: Fails, command: str) -> None:
    for number, (alter, words) in enumerate(ALTERED.values()):
        folder = Path(shutil.copytree(artifact, tmp_path / str(number)))
        alter(folder)
        fails((command.split()[0], folder, *COMMANDS[command]), 2, tmp_path / str(number), words)
    assert not Path("/tmp/never-written.json").exists()


def test_too_small_a_device(artifact: Path, fails: Fails) -> None:
    """Refused by forecast; and when it is forced, by what happens."""
    for command in ("validate", "bench"):
        fails((command, artifact, "-q", "--limit-memory", "32MB"), 4, "by forecast", "32.0 MB", "--force")
        fails((command, artifact, "-q", "--limit-memory", "32MB", "--force"), 4, "does not run in 32.0 MB", "stopped")
    fails((command, artifact, "-q", "--limit-memory", "3 parsecs"), 2, "--limit-memory", "3 parsecs")


def test_a_device_that_is_large_enough(artifact: Path, document: Callable[..., dict[str, Any]]) -> None:
    found = document("validate", artifact, "--limit-memory", "200MB", "--limit-cores", "1", "--tokens", "200")
    assert found["limit_memory_bytes"] == 200_000_000 and 10**7 < found["limit_memory_peak_bytes"] < 2 * 10**8
    assert found["tokens"] == 199 and found["perplexity"]
