"""Signatures: made over SHA256SUMS, checked with the other half of the key, worth nothing for anything else."""

from __future__ import annotations

import builtins
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from exporters.artifact.errors import NotAvailable, SlmcError
from targets.device.verify import SIGNATURE_NAME

pytest.importorskip("cryptography")
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from toolchain.delivery import signing
from toolchain.delivery.signing import check_signature, sign

PEM, RAW = serialization.Encoding.PEM, serialization.Encoding.OpenSSH
OPEN = serialization.NoEncryption()
KINDS = {
    "pem": (PEM, serialization.PrivateFormat.PKCS8, PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
    "ssh": (PEM, serialization.PrivateFormat.OpenSSH, RAW, serialization.PublicFormat.OpenSSH),
}


def pair(folder: Path, kind: str = "pem", key: Any = None, encryption: Any = OPEN) -> tuple[Path, Path]:
    key = key or ed25519.Ed25519PrivateKey.generate()
    one, form, other, public = KINDS[kind]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "key").write_bytes(key.private_bytes(one, form, encryption))
    (folder / "pub").write_bytes(key.public_key().public_bytes(other, public))
    return folder / "key", folder / "pub"


@pytest.fixture
def unopened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Stands for an artifact whose files are right; that is for open_artifact to say."""
    monkeypatch.setattr(signing, "open_artifact", lambda artifact: None)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "SHA256SUMS").write_text("ab  model.onnx\n")
    return tmp_path / "a"


@pytest.mark.parametrize("kind", KINDS)
def test_signed_and_checked(unopened: Path, tmp_path: Path, kind: str) -> None:
    key, public = pair(tmp_path / "k", kind)
    sign(unopened, key)
    check_signature(unopened, public)
    sign(unopened, key)  # again: it is ours to replace
    (unopened / "SHA256SUMS").write_text("ac  model.onnx\n")
    with pytest.raises(SlmcError, match=r"not signed with the key of .* or altered since"):
        check_signature(unopened, public)


def test_openssl_says_the_same(unopened: Path, tmp_path: Path) -> None:
    """An independent reader of the signature."""
    import base64

    key, public = pair(tmp_path / "k")
    sign(unopened, key)
    (tmp_path / "raw").write_bytes(base64.b64decode((unopened / SIGNATURE_NAME).read_text()))
    command = ("openssl", "pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin", "-in", unopened / "SHA256SUMS")
    try:
        done = subprocess.run([*command, "-sigfile", tmp_path / "raw"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no openssl")
    assert done.returncode == 0, done.stderr


def test_another_key_is_refused(unopened: Path, tmp_path: Path) -> None:
    sign(unopened, pair(tmp_path / "mine")[0])
    with pytest.raises(SlmcError, match="not signed with the key"):
        check_signature(unopened, pair(tmp_path / "yours")[1])


def test_unsigned_or_damaged(unopened: Path, tmp_path: Path) -> None:
    public = pair(tmp_path / "k")[1]
    with pytest.raises(SlmcError, match=r"SHA256SUMS\.sig: cannot be read .* 'slmc sign'"):
        check_signature(unopened, public)
    for text in ("", "!", "AAAA", "A" * 88, "A" * 100_000):
        (unopened / SIGNATURE_NAME).write_text(text)
        with pytest.raises(SlmcError, match=r"no signature|not signed|at most"):
            check_signature(unopened, public)


def test_keys_that_are_none(unopened: Path, tmp_path: Path) -> None:
    key, public = pair(tmp_path / "k")
    (tmp_path / "text").write_text("no key")
    secret = pair(tmp_path / "s", encryption=serialization.BestAvailableEncryption(b"secret"))[0]
    curve = pair(tmp_path / "c", key=ec.generate_private_key(ec.SECP256R1()))
    os.mkfifo(tmp_path / "fifo")
    for wrong in (tmp_path / "text", public, secret, curve[0], tmp_path / "fifo", tmp_path / "none", Path("/dev/zero")):
        with pytest.raises(SlmcError, match="openssl genpkey"):
            sign(unopened, wrong)
    for wrong in (tmp_path / "text", key, curve[1], tmp_path / "fifo", tmp_path / "none"):
        with pytest.raises(SlmcError, match="openssl genpkey"):
            check_signature(unopened, wrong)
    assert not (unopened / SIGNATURE_NAME).exists()


def test_a_foreign_file_in_the_place_of_the_signature_stays(unopened: Path, tmp_path: Path) -> None:
    (unopened / SIGNATURE_NAME).write_text("dGhlc2lz")
    with pytest.raises(SlmcError, match="will not be replaced"):
        sign(unopened, pair(tmp_path / "k")[0])
    assert (unopened / SIGNATURE_NAME).read_text() == "dGhlc2lz"


def test_without_the_package(unopened: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def lacking(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("cryptography"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", lacking)
    with pytest.raises(NotAvailable, match=r"pip install 'slmc\[sign\]'"):
        sign(unopened, Path("key"))
