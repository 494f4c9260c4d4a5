"""Signatures of artifacts: Ed25519 (RFC 8032) over SHA256SUMS, which covers every file and the manifest."""

from __future__ import annotations

import base64
import binascii
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from exporters.artifact.errors import NotAvailable, SlmcError
from exporters.artifact.opening import read_bytes
from targets.device.verify import SIGNATURE_NAME, SUMS_BYTES, SUMS_NAME, open_artifact
from toolchain.files.outputs import is_plain
from toolchain.files.workspace import write_whole

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

KEY_BYTES, SIGNATURE_BYTES = 16384, 64
_MAKE_KEYS = (
    "make one with 'openssl genpkey -algorithm ed25519 -out KEY' and 'openssl pkey -in KEY -pubout -out PUBKEY'"
)


def sign(artifact: Path, key: Path) -> str:
    """Sign an artifact whose files are as listed; the signature is written beside SHA256SUMS.

    Returns: the SHA-256 of the public key, in hexadecimal.

    Raises:
        SlmcError: the artifact is altered, or the file is no private key without a password.
        NotAvailable: the package cryptography is not installed.
    """
    private = _private_key(key)
    open_artifact(artifact)
    place = artifact / SIGNATURE_NAME
    if place.exists() and not (is_plain(place) and len(_decoded(place)) == SIGNATURE_BYTES):
        raise SlmcError(f"{place}: no signature of slmc; it will not be replaced, move it away")
    signature = private.sign(_signed_bytes(artifact))
    write_whole(place, base64.b64encode(signature).decode("ascii") + "\n")
    return fingerprint(private.public_key())


def check_signature(artifact: Path, key: Path) -> None:
    """Raise SlmcError unless SHA256SUMS of an artifact was signed with the private half of this public key.

    What the sums say of the files is for `open_artifact` to compare.

    Raises:
        NotAvailable: the package cryptography is not installed.
    """
    public = _public_key(key)
    signature = _decoded(artifact / SIGNATURE_NAME)
    from cryptography.exceptions import InvalidSignature

    try:
        public.verify(signature, _signed_bytes(artifact))
    except InvalidSignature as error:
        raise SlmcError(
            f"{artifact}: not signed with the key of {key} ({fingerprint(public)[:16]}), or altered since; get it from "
            "whom you trust"
        ) from error


def fingerprint(public: Ed25519PublicKey) -> str:
    """SHA-256 of the 32 bytes of a public key."""
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()


def _signed_bytes(artifact: Path) -> bytes:
    return read_bytes(artifact / SUMS_NAME, "copy the artifact again", SUMS_BYTES)


def _decoded(place: Path) -> bytes:
    text = read_bytes(place, "it is not signed: ask its maker to run 'slmc sign'", KEY_BYTES)
    try:
        return base64.b64decode(text.strip(), validate=True)
    except binascii.Error as error:
        raise SlmcError(f"{place}: no signature of slmc ({error}); copy the artifact again") from error


def _private_key(path: Path) -> Ed25519PrivateKey:
    serialization, ed25519 = _library()
    raw = read_bytes(path, f"give a private key; {_MAKE_KEYS}", KEY_BYTES)
    load = serialization.load_ssh_private_key if b"OPENSSH" in raw else serialization.load_pem_private_key
    try:
        key = load(raw, None)
    except (ValueError, TypeError, _unsupported()) as error:  # TypeError: it wants a password
        raise SlmcError(f"{path}: no private key without a password ({_brief(error)}); {_MAKE_KEYS}") from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise SlmcError(f"{path}: a key of another kind than Ed25519; {_MAKE_KEYS}")
    return cast("Ed25519PrivateKey", key)


def _public_key(path: Path) -> Ed25519PublicKey:
    serialization, ed25519 = _library()
    raw = read_bytes(path, f"give a public key; {_MAKE_KEYS}", KEY_BYTES)
    load = serialization.load_ssh_public_key if raw.startswith(b"ssh-") else serialization.load_pem_public_key
    try:
        key = load(raw)
    except (ValueError, _unsupported()) as error:
        raise SlmcError(f"{path}: no public key ({_brief(error)}); {_MAKE_KEYS}") from error
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise SlmcError(f"{path}: a key of another kind than Ed25519; {_MAKE_KEYS}")
    return cast("Ed25519PublicKey", key)


def _library() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise NotAvailable(
            "signatures need the package cryptography, which is not installed; pip install 'slmc[sign]'"
        ) from error
    return serialization, ed25519


def _unsupported() -> type[Exception]:
    from cryptography.exceptions import UnsupportedAlgorithm

    return UnsupportedAlgorithm


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:80].partition(". ")[0]
