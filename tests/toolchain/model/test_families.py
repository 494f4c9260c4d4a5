"""The list of families: no name or model type twice, and those of installed packages."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporters.artifact.errors import SlmcError
from toolchain.model.families import FAMILIES, FAMILY_PARTS, all_families

GOOD = """
class Family:
    name, model_types, classifies = "from-outside", ("from-outside",), False
    def rename(self, name): return name
    def fits(self, shapes): return "outside" in shapes
    def table(self, config): ...
    def build(self, shapes, config, options): ...
    def tree(self, model): ...
"""


def installed(at: Path, monkeypatch: pytest.MonkeyPatch, module: str, code: str) -> None:
    """A package with an entry point, as pip leaves it."""
    (at / f"{module}.py").write_text(code)
    info = at / f"{module}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[slmc.families]\nit = {module}:Family\n")
    monkeypatch.syspath_prepend(str(at))
    all_families.cache_clear()


@pytest.fixture(autouse=True)
def afresh() -> object:
    all_families.cache_clear()
    yield
    all_families.cache_clear()


def test_nothing_twice() -> None:
    names = [family.name for family in FAMILIES]
    types = [kind for family in FAMILIES for kind in family.model_types]
    assert len(set(names)) == len(names) and len(set(types)) == len(types)
    assert all(hasattr(family, part) for family in FAMILIES for part in FAMILY_PARTS)


def test_a_package_brings_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path, monkeypatch, "outside_good", GOOD)
    assert all_families()[: len(FAMILIES)] == FAMILIES
    assert "from-outside" in [family.name for family in all_families()]


@pytest.mark.parametrize(
    ("module", "code", "said"),
    [
        (
            "outside_broken",
            "import nothing_that_exists",
            r"package outside_broken 1.2: its model family cannot be loaded",
        ),
        (
            "outside_part",
            "class Family:\n    name = 'x'",
            "package outside_part 1.2: its model family has no model_types",
        ),
        ("outside_twice", GOOD.replace("from-outside", "rwkv7"), "there is a model family rwkv7 already"),
    ],
)
def test_what_a_package_does_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, code: str, said: str
) -> None:
    installed(tmp_path, monkeypatch, module, code)
    with pytest.raises(SlmcError, match=said):
        all_families()
