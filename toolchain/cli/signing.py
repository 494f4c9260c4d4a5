"""The command that signs an artifact: sign."""

from __future__ import annotations

from pathlib import Path

import click

from targets.device.verify import SIGNATURE_NAME
from toolchain.cli.console import Console
from toolchain.cli.options import PATH, command
from toolchain.delivery.signing import sign


@click.command("sign")
@click.argument("artifact", type=PATH)
@click.option("--key", type=PATH, required=True, help="Private key, Ed25519, PEM or OpenSSH, without a password.")
@command
def sign_command(console: Console, artifact: Path, key: Path) -> int:
    """Sign an ARTIFACT, so that others can ask for your signature with --require-signature."""
    found = sign(artifact, key)
    place = artifact / SIGNATURE_NAME
    console.result({"signature": str(place), "key_sha256": found}, f"{place}: written with the key {found[:16]}")
    return 0
