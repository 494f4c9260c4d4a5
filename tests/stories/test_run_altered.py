"""run.py on artifacts altered at random, sums made again or not: it runs, or one line says what is damaged."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from documents import places

from targets.device import run_artifact

VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 2**63, 10**400, 1e308, "", "\ud800", "../x", [], {}, [[[]]], {"a": {}}, [2**32, 2**32], ["x"],
)  # fmt: skip
ROUNDS = 25


@pytest.fixture
def copy(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An artifact that run.py's program in this process runs."""
    folder = Path(shutil.copytree(artifact, tmp_path / "copy"))
    monkeypatch.setattr(run_artifact, "HERE", folder)
    return folder


def ends_well(capfd: pytest.CaptureFixture[str], what: object) -> int:
    code = run_artifact.main(["-n", "3", "--temp", "0", "-p", "The ship", "--no-native"])
    said = capfd.readouterr().err.strip().splitlines()
    assert (code == 0 and said[-1].startswith("prompt of")) or (
        code == 2 and len(said) == 1 and said[0].startswith("error: ")
    ), (what, code, said)
    return code


@pytest.mark.parametrize("seed", range(2))
def test_a_manifest_with_other_values(copy: Path, capfd: pytest.CaptureFixture[str], seed: int) -> None:
    """By somebody who made the sums again: values that run.py reads."""
    rng, file = random.Random(seed), copy / "manifest.json"
    whole = json.loads(file.read_text())
    (copy / "SHA256SUMS").unlink()
    read = {key: whole[key] for key in ("io", "text", "files")}
    for _ in range(ROUNDS):
        document = json.loads(json.dumps(read))
        holder, key = rng.choice(list(places(document)))
        if rng.randrange(4):
            holder[key] = (value := rng.choice(VALUES))
        else:
            value = holder[key]
            del holder[key]
        file.write_text(json.dumps(whole | document))
        ends_well(capfd, (key, value))


@pytest.mark.parametrize("name", ["manifest.json", "tokenizer.json", "model.onnx"])
def test_files_with_other_bytes(copy: Path, capfd: pytest.CaptureFixture[str], name: str) -> None:
    """Bytes changed, left out or put in: the sums tell, before anything is read."""
    rng, file = random.Random(5), copy / name
    whole = file.read_bytes()
    for _ in range(20):
        at, length = rng.randrange(len(whole)), rng.randrange(1, 8)
        other = bytes(rng.randrange(32, 127) for _ in range(rng.randrange(8)))
        file.write_bytes(whole[:at] + other + whole[at + length :])
        assert file.read_bytes() == whole or ends_well(capfd, (name, at)) == 2


@pytest.mark.parametrize("name", ["manifest.json", "tokenizer.json", "model.onnx", "model.onnx.data"])
def test_a_file_is_missing_or_something_else(copy: Path, capfd: pytest.CaptureFixture[str], name: str) -> None:
    (copy / name).unlink()
    assert ends_well(capfd, name) == 2
    (copy / name).mkdir()
    assert ends_well(capfd, name) == 2
