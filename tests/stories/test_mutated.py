"""Plans, manifests and target files altered at random: read, or refused in one line; never anything else."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from documents import places

from exporters.artifact.errors import SlmcError
from exporters.artifact.manifest import read_manifest
from targets.cpus.spec import read_cpu
from toolchain.search.plan import read_plan

ROOT = Path(__file__).parents[2]
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 2**63, -(2**64), 10**400, 1e308, float("inf"), float("nan"), "", "\ud800", "\0", "../x",
    "a" * 10**5, [], {}, [[[]]], {"a": {}}, [2**32, 2**32],
)  # fmt: skip
ROUNDS = 40
READERS: dict[str, Callable[[Path], object]] = {
    "plan.json": read_plan, "manifest.json": lambda path: read_manifest(path.parent),
}  # fmt: skip
PARTS = (
    "9" * 400, "9" * 5000, "[" * 3000, "nan", "-inf", '"', "=", "\n", "[[a]]", "1979-05-27", "0x", "\0", "é", "''''",
)  # fmt: skip


def one_line(read: Callable[[], object]) -> None:
    try:
        read()
    except SlmcError as error:
        text = str(error)
        assert text and "\n" not in text.strip() and error.exit_code in (2, 5)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("name", "read"), [("plan.json", read_plan), ("manifest.json", lambda p: read_manifest(p.parent))]
)
def test_documents(artifact: Path, tmp_path: Path, name: str, read: Callable[[Path], object], seed: int) -> None:
    rng, file = random.Random(seed), tmp_path / name
    whole = json.loads((artifact / name).read_text())
    for _ in range(ROUNDS):
        document = json.loads(json.dumps(whole))
        holder, key = rng.choice(list(places(document)))
        match rng.randrange(3):
            case 0:
                holder[key] = rng.choice(VALUES)
            case 1:
                del holder[key]
            case _ if isinstance(holder, dict):
                holder[rng.choice(("", "__class__", "extra", "\ud800"))] = rng.choice(VALUES)
            case _:
                holder.extend(holder * 3)
        file.write_text(json.dumps(document))
        one_line(lambda: read(file))


@pytest.mark.parametrize("name", ["plan.json", "manifest.json"])
def test_bytes_of_documents(artifact: Path, tmp_path: Path, name: str) -> None:
    rng, whole, file = random.Random(5), (artifact / name).read_bytes(), tmp_path / name
    for _ in range(ROUNDS):
        at, length = rng.randrange(len(whole)), rng.randrange(8)
        file.write_bytes(whole[:at] + rng.randbytes(rng.randrange(8)) + whole[at + length :])
        one_line(lambda: read_plan(file) if name == "plan.json" else read_manifest(tmp_path))


@pytest.mark.parametrize("file", sorted((ROOT / "targets" / "cpus").glob("*.toml")), ids=lambda p: p.stem)
def test_target_files(tmp_path: Path, file: Path) -> None:
    rng, text, changed = random.Random(7), file.read_text(), tmp_path / "x.toml"
    for _ in range(ROUNDS):
        at, length = rng.randrange(len(text)), rng.randrange(12)
        changed.write_text(text[:at] + rng.choice(PARTS) + text[at + length :])
        one_line(lambda: read_cpu(changed))
