"""What a device is sent: enough to run, and nothing that needs torch."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest

from exporters.artifact.errors import NotAvailable
from exporters.artifact.manifest import FileEntry, read_manifest
from targets.device.native import platform_name
from targets.device.verify import file_sha256
from targets.remote.shipment import packages, shipment

ROOT = Path(__file__).parents[3]


def imports(path: Path) -> set[str]:
    """Modules of ours that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in names if name.split(".")[0] in ("exporters", "targets", "toolchain")}


def test_every_module_that_is_imported_is_sent():
    """Followed from the programs that a device runs; a module that is missing would only be missed there."""
    sent = {parcel.name.removeprefix("packages/") for parcel in packages()}
    wanted, seen = {"targets.device.worker", "targets.device.evaluation", "targets.device.limits"}, set()
    while wanted:
        name = wanted.pop()
        file = ROOT / (name.replace(".", "/") + ".py")
        if name in seen or not file.is_file():
            continue
        seen.add(name)
        assert str(file.relative_to(ROOT)) in sent, f"{name} is not sent: it belongs into a device package"
        wanted |= imports(file)


def test_nothing_sent_imports_what_a_device_lacks():
    for parcel in packages():
        if parcel.path.suffix == ".py":
            modules = {
                name.split(".")[0]
                for node in ast.walk(ast.parse(parcel.path.read_text()))
                for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else [])
                + ([node.module] if isinstance(node, ast.ImportFrom) and node.module else [])
            }
            assert not modules & {"torch", "onnx", "onnxscript", "toolchain", "click", "pydantic"}, parcel.name


def test_the_model_and_the_operators_of_one_platform(packed):
    here, other = f"native/{platform_name()}/libslmc_ops.so", "native/plan9-mips/libslmc_ops.so"
    for name in (here, other):
        (packed.artifact / name).parent.mkdir(parents=True)
        (packed.artifact / name).write_bytes(b"\x7fELF")
    manifest = read_manifest(packed.artifact)
    libraries = {name: FileEntry(4, file_sha256(packed.artifact / name)) for name in (here, other)}
    manifest = dataclasses.replace(manifest, files=manifest.files | libraries)
    common = {"artifact/manifest.json", "artifact/model.onnx", "artifact/model.onnx.data"}

    def names(platform: str, native: bool = True) -> set[str]:
        parcels = shipment(packed.artifact, manifest, platform, native=native)
        return {p.name for p in parcels if not p.name.startswith(("packages/targets", "packages/exporters"))}

    assert names(platform_name()) == common | {f"artifact/{here}"}
    assert names("plan9-mips") == common | {f"artifact/{other}"}
    assert names("linux-riscv64", native=False) == common
    with pytest.raises(NotAvailable, match=r"no compiled operators for linux-riscv64.*plan9-mips.*--runtime stock"):
        names("linux-riscv64")


def test_the_installed_operators_where_the_artifact_has_none(packed):
    parcels = shipment(packed.artifact, read_manifest(packed.artifact), platform_name(), native=True)
    (library,) = (p for p in parcels if p.name == "packages/slmc_native/libslmc_ops.so")
    assert library.bytes == library.path.stat().st_size and library.sha256 == file_sha256(library.path)
