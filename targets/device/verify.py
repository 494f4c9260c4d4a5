"""An artifact's files checked before anything reads or runs them: all that are listed, unaltered, and no others."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from exporters.artifact.errors import SlmcError
from exporters.artifact.manifest import MANIFEST_NAME, FileEntry, Manifest, confined, read_manifest
from exporters.artifact.opening import MIB, open_file, read_text

SUMS_NAME, SIGNATURE_NAME = "SHA256SUMS", "SHA256SUMS.sig"
SUMS_BYTES = 4 * MIB
_SHA256_DIGITS = 64
NEIGHBOURS = (".DS_Store", "desktop.ini", "Thumbs.db", "__pycache__")


def is_neighbour(name: str) -> bool:
    """Whether a name is one that versioning, file managers or Python leave beside files; nothing here runs it."""
    return name in NEIGHBOURS or name.startswith((".git", "._"))


def file_sha256(path: Path) -> str:
    """SHA-256 of a regular file's bytes, in hexadecimal.

    Raises:
        SlmcError: it is none, or cannot be read.
    """
    with open_file(path, "give a file, or copy it again") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_artifact(artifact: Path) -> Manifest:
    """An artifact's manifest after every file has been checked.

    Raises:
        SlmcError: something is missing, altered, too much, or of a kind that is not allowed.
    """
    manifest = read_manifest(artifact)
    _verify_sums(artifact, manifest)
    _verify_names(artifact, manifest)
    verify_files(artifact, manifest.files)
    return manifest


def verify_unchanged(artifact: Path, manifest: Manifest) -> None:
    """After the work on an artifact: check that nobody has put another one into its place meanwhile.

    Raises:
        SlmcError: its manifest is another one now.
    """
    if read_manifest(artifact).to_json() != manifest.to_json():
        raise SlmcError(f"{artifact}: another artifact was put there meanwhile; run the command again")


def verify_files(artifact: Path, files: Mapping[str, FileEntry]) -> None:
    """Check every listed file's presence, size and SHA-256.

    Raises:
        SlmcError: the first file that is missing or differs.
    """
    for name, entry in files.items():
        path = confined(artifact, name)
        if not path.is_file():
            raise SlmcError(f"{artifact}: {name} is missing; copy the artifact again")
        size = path.stat().st_size
        if size != entry.bytes:
            raise SlmcError(f"{path}: {size} bytes, the manifest says {entry.bytes}; copy the artifact again")
        if file_sha256(path) != entry.sha256:
            raise SlmcError(f"{path}: the contents differ from the manifest's SHA-256; copy the artifact again")


def _verify_sums(artifact: Path, manifest: Manifest) -> None:
    """SHA256SUMS covers what the manifest cannot: the manifest itself. The two must say the same of all other files."""
    sums = read_sums(confined(artifact, SUMS_NAME))
    if sums.get(MANIFEST_NAME) != file_sha256(artifact / MANIFEST_NAME):
        raise SlmcError(f"{artifact / MANIFEST_NAME}: the contents differ from {SUMS_NAME}; copy the artifact again")
    listed = {name: entry.sha256 for name, entry in manifest.files.items()}
    for name in sorted(listed.keys() | sums.keys() - {MANIFEST_NAME}):
        if listed.get(name) != sums.get(name):
            raise SlmcError(f"{artifact}: {SUMS_NAME} and {MANIFEST_NAME} disagree on {name}; copy the artifact again")


def read_sums(path: Path) -> dict[str, str]:
    """File name -> SHA-256 of a file as `sha256sum` writes it.

    Raises:
        SlmcError: no such file, or another format.
    """
    lines = read_text(path, "copy the artifact again", SUMS_BYTES).splitlines()
    sums = {}
    for number, line in enumerate(lines, 1):
        digest, gap, name = line[:_SHA256_DIGITS], line[_SHA256_DIGITS : _SHA256_DIGITS + 2], line[_SHA256_DIGITS + 2 :]
        if gap != "  " or not name or name in sums or not set(digest) <= set("0123456789abcdef"):
            raise SlmcError(
                f"{path}: line {number} is not 'SHA-256  NAME', or names a file again; copy the artifact again"
            )
        sums[name] = digest
    return sums


def _verify_names(artifact: Path, manifest: Manifest) -> None:
    """Refuse what no line lists: code beside the model, links that lead out, devices."""
    allowed = {MANIFEST_NAME, SUMS_NAME, SIGNATURE_NAME, *manifest.files}
    for name, mode in sorted(_walk(artifact, "")):
        if stat.S_ISLNK(mode) and name in allowed:
            continue  # as a hub's cache makes them; what it leads to has the right bytes
        if stat.S_ISLNK(mode):
            raise SlmcError(f"{artifact / name}: a link that is no part of this artifact; move it away")
        if not stat.S_ISREG(mode):
            raise SlmcError(f"{artifact / name}: neither file nor folder; an artifact holds plain files only")
        if name not in allowed:
            raise SlmcError(
                f"{artifact / name}: no part of this artifact (its manifest does not list it); move it away"
            )


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, int]]:
    """Every entry below a folder that is no folder itself, by its relative name, links not followed, neighbours not
    counted."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_neighbour(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(folder / entry.name, f"{prefix}{entry.name}/")
            else:
                yield prefix + entry.name, entry.stat(follow_symlinks=False).st_mode
