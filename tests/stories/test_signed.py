"""A signed artifact, asked for its signature by every command that opens one; its own code runs only when asked for."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from targets.device.verify import SIGNATURE_NAME, open_artifact

pytest.importorskip("cryptography")
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

COMMANDS: dict[str, tuple[str, ...]] = {
    "inspect": (), "report": (), "validate": (), "bench": (), "generate": (), "eval": ("--data", __file__),
    "gate": ("--update-baseline", "--baseline", "/tmp/never-written.json"),
}  # fmt: skip


def keys(folder: Path) -> tuple[Path, Path]:
    key = Ed25519PrivateKey.generate()
    pem, public = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    form, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key").write_bytes(key.private_bytes(pem, form, none))
    (folder / "pub").write_bytes(key.public_key().public_bytes(pem, public))
    return folder / "key", folder / "pub"


def test_signed_then_asked_for(artifact: Path, slmc: Any, fails: Callable[..., None], tmp_path: Path) -> None:
    key, public = keys(tmp_path)
    (tmp_path / "other").mkdir()
    folder = Path(shutil.copytree(artifact, tmp_path / "a"))
    for command, more in COMMANDS.items():
        fails((command, folder, *more, "--require-signature", public), 2, SIGNATURE_NAME, "slmc sign")
    assert slmc("sign", folder, "--key", key).exit_code == 0
    open_artifact(folder)
    assert slmc("inspect", folder, "--require-signature", public).exit_code == 0
    assert slmc("generate", folder, "-n", "2", "--require-signature", public).exit_code == 0
    for command, more in COMMANDS.items():
        fails(
            (command, folder, *more, "--require-signature", keys(tmp_path / "other")[1]), 2, "not signed with the key"
        )
    data = bytearray((folder / "model.onnx.data").read_bytes())
    data[7] ^= 1
    (folder / "model.onnx.data").write_bytes(data)
    fails(("inspect", folder, "--require-signature", public), 2, "model.onnx.data: the contents differ")
    assert not Path("/tmp/never-written.json").exists()
