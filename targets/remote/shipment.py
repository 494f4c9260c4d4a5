"""What a device is sent: the model, the operators for its platform, and our packages without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from exporters.artifact.errors import NotAvailable
from exporters.artifact.manifest import MANIFEST_NAME, Manifest
from exporters.artifact.native_library import library_path
from targets.device.native import LIBRARY_NAME, platform_name
from targets.device.verify import file_sha256

ARTIFACT, PACKAGES = "artifact", "packages"
MODEL_FILES = ("model.onnx", "model.onnx.data")
DEVICE_PACKAGES = ("exporters/artifact", "targets/device")
"""All of our Python that a device runs; they import nothing of ours but each other (see pyproject.toml)."""

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Parcel:
    """One file: where it lies here, its name in the folder there, its size and SHA-256 as they must arrive."""

    path: Path
    name: str
    bytes: int
    sha256: str


def shipment(artifact: Path, manifest: Manifest, platform: str, *, native: bool) -> tuple[Parcel, ...]:
    """All that a device of this platform ('linux-aarch64') needs to run an artifact whose files have been checked.

    Args:
        native: whether the compiled operators are wanted.

    Raises:
        NotAvailable: they are wanted, and neither the artifact nor this installation has them for the platform.
    """
    own = f"native/{platform}/{LIBRARY_NAME}"
    library: tuple[Parcel, ...] = ()
    if native and own in manifest.files:
        library = (_listed(artifact, manifest, own),)
    elif native:
        installed = _installed_library(artifact, manifest, platform)
        library = (parcel(installed, f"{PACKAGES}/slmc_native/{LIBRARY_NAME}"),)
    return (*library, *model_parcels(artifact, manifest), *packages())


def model_parcels(artifact: Path, manifest: Manifest) -> tuple[Parcel, ...]:
    """The model and its manifest."""
    names = [name for name in MODEL_FILES if name in manifest.files]
    manifest_parcel = parcel(artifact / MANIFEST_NAME, f"{ARTIFACT}/{MANIFEST_NAME}")
    return (*(_listed(artifact, manifest, name) for name in names), manifest_parcel)


def _listed(artifact: Path, manifest: Manifest, name: str) -> Parcel:
    """A file that the manifest lists."""
    entry = manifest.files[name]
    return Parcel(artifact / name, f"{ARTIFACT}/{name}", entry.bytes, entry.sha256)


def packages() -> tuple[Parcel, ...]:
    """The Python files that a device runs."""
    paths = [_ROOT / "exporters" / "__init__.py", _ROOT / "targets" / "__init__.py"]
    paths += [path for folder in DEVICE_PACKAGES for path in sorted((_ROOT / folder).glob("*.py"))]
    return tuple(parcel(path, f"{PACKAGES}/{path.relative_to(_ROOT)}") for path in paths)


def _installed_library(artifact: Path, manifest: Manifest, platform: str) -> Path:
    if platform == platform_name():
        return library_path()
    there = sorted(name.split("/")[1] for name in manifest.files if name.startswith("native/"))
    raise NotAvailable(
        f"{artifact}: no compiled operators for {platform}, which that machine is (the artifact has "
        f"{', '.join(there) or 'none'}, this installation {platform_name()}); "
        "build for it, or run on plain ONNX Runtime with --runtime stock"
    )


def parcel(path: Path, name: str) -> Parcel:
    """A file as it lies here, and its name there."""
    return Parcel(path, name, path.stat().st_size, file_sha256(path))
