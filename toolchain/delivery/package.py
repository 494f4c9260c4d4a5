"""Everything about an artifact that is a file: put together in a staging folder, then moved into place at once."""

from __future__ import annotations

import datetime
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from exporters.errors import SlmcError
from exporters.manifest import MANIFEST_NAME, FileEntry, Manifest, confined
from exporters.native_library import library_path
from targets.native import LIBRARY_NAME, platform_name
from toolchain.model.weights import file_sha256

SUMS_NAME = "SHA256SUMS"
_RUNNER = Path(__file__).parent / "run_artifact.py"


def check_output(output: Path, *, force: bool) -> None:
    """Refuse, before any work, an output that could not be written or would be lost.

    Raises:
        SlmcError: it exists and --force is not given, or its folder cannot be written.
    """
    if (output.exists() or output.is_symlink()) and not force:
        raise SlmcError(f"{output}: exists already; give --force to replace it, or choose another output")
    if output.is_dir() and not (output / MANIFEST_NAME).is_file() and any(output.iterdir()):
        raise SlmcError(f"{output}: a folder that is no artifact; it will not be replaced, choose another output")
    probe = output.parent / f".{output.name}.{uuid.uuid4().hex}"
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise SlmcError(f"{output}: its folder cannot be written ({error.strerror}); choose another output") from error


def add_companions(staging: Path, tokenizer: Path) -> None:
    """The tokenizer, run.py, and the compiled operators of this platform."""
    shutil.copyfile(tokenizer, staging / "tokenizer.json")
    shutil.copyfile(_RUNNER, staging / "run.py")
    native = staging / "native" / platform_name()
    native.mkdir(parents=True)
    shutil.copyfile(library_path(), native / LIBRARY_NAME)


def write_sums(staging: Path) -> dict[str, FileEntry]:
    """SHA256SUMS over every file (as `sha256sum -c` reads it), and the same as manifest entries without the manifest.

    The manifest lists every file but itself and SHA256SUMS; SHA256SUMS lists every file but itself.
    """
    names = sorted(str(p.relative_to(staging)) for p in staging.rglob("*") if p.is_file() and p.name != SUMS_NAME)
    entries = {name: FileEntry((staging / name).stat().st_size, file_sha256(staging / name)) for name in names}
    lines = "".join(f"{entry.sha256}  {name}\n" for name, entry in entries.items())
    (staging / SUMS_NAME).write_text(lines, encoding="utf-8")
    return {name: entry for name, entry in entries.items() if name != MANIFEST_NAME}


def verify_files(artifact: Path, manifest: Manifest) -> None:
    """Check every listed file's presence, size and SHA-256.

    Raises:
        SlmcError: the first file that is missing or differs.
    """
    for name, entry in manifest.files.items():
        path = confined(artifact, name)
        if not path.is_file():
            raise SlmcError(f"{artifact}: {name} is missing; copy the artifact again")
        size = path.stat().st_size
        if size != entry.bytes:
            raise SlmcError(f"{path}: {size} bytes, the manifest says {entry.bytes}; copy the artifact again")
        if file_sha256(path) != entry.sha256:
            raise SlmcError(f"{path}: the contents differ from the manifest's SHA-256; copy the artifact again")


def publish(staging: Path, output: Path, *, force: bool) -> None:
    """Move a finished folder into place; what stood there goes only when the new one stands."""
    check_output(output, force=force)
    old = output.with_name(f".{output.name}.{uuid.uuid4().hex}")
    replaced = output.exists()
    if replaced:
        output.rename(old)
    staging.rename(output)
    if replaced:
        shutil.rmtree(old)


def now() -> str:
    """The present moment in UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def largest_files(entries: Mapping[str, FileEntry]) -> int:
    """Bytes of model.onnx and model.onnx.data."""
    return sum(entries[name].bytes for name in ("model.onnx", "model.onnx.data"))
