"""Makes the folder that targets.remote.emulation runs: an aarch64 Python with numpy, onnxruntime and tokenizers.

    python -m targets.remote.sysroot FOLDER     (Debian or a relative: apt-get, dpkg-deb, pip; about 50 MB of downloads)

Programs come from Debian bookworm, which is what Raspberry Pi OS is built on, by name: a stable release only replaces
them by fixes. Wheels come from PyPI by version and digest (sysroot-wheels.txt). Nothing is installed on this machine.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from exporters.artifact.errors import NotAvailable, SlmcError
from targets.remote.emulation import write_cpus

_WHEELS = Path(__file__).parent / "sysroot-wheels.txt"
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_SOURCE = f"""Types: deb
URIs: http://deb.debian.org/debian
Suites: bookworm
Components: main
Architectures: arm64
Signed-By: {_KEYRING}
"""
_PACKAGES = (
    "python3.11-minimal",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "libc6",
    "libstdc++6",
    "libgcc-s1",
    "zlib1g",
    "libexpat1",
    "libssl3",
    "libffi8",
    "libbz2-1.0",
    "liblzma5",
    "libuuid1",
    "libcrypt1",
)
_GLIBC = ("2_28", "2_27", "2_17")
"""glibc versions that wheels may ask for; bookworm has 2.36."""


def prepare_sysroot(sysroot: Path) -> None:
    """Make `sysroot`, whole or not at all.

    Raises:
        SlmcError: it exists already.
        NotAvailable: a tool is missing, or a download failed.
    """
    if sysroot.exists():
        raise SlmcError(f"{sysroot}: exists already; remove it to prepare it anew")
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise NotAvailable(f"{tool} is not installed: Debian's packages are fetched with it; use a Debian machine")
    if not _KEYRING.is_file():
        raise NotAvailable(f"{_KEYRING} is missing: it signs Debian's packages; install debian-archive-keyring")
    sysroot = sysroot.absolute()
    sysroot.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=sysroot.parent, prefix=".sysroot-") as scratch:
        root = Path(scratch) / "root"
        for package in _debian_packages(Path(scratch) / "apt"):
            _run("dpkg-deb", "-x", str(package), str(root))
        packages = root / "usr" / "lib" / "python3" / "dist-packages"
        for wheel in _wheels(Path(scratch) / "wheels"):
            shutil.unpack_archive(wheel, packages, "zip")
        write_cpus(root)
        root.rename(sysroot)


def _debian_packages(folder: Path) -> list[Path]:
    """The packages' files, fetched by an apt that knows nothing of this machine's own."""
    for name in ("lists/partial", "cache/archives/partial", "debs"):
        (folder / name).mkdir(parents=True)
    source = folder / "debian.sources"
    source.write_text(_SOURCE, encoding="ascii")
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "",
        "Dir::Etc::sourcelist": source,
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::status": "/dev/null",
        "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder / "cache",
    }
    apt = ["apt-get", "--quiet=2", *(f"--option={key}={value}" for key, value in settings.items())]
    _run(*apt, "update")
    _run(*apt, "download", *_PACKAGES, folder=folder / "debs")
    return sorted((folder / "debs").glob("*.deb"))


def _wheels(folder: Path) -> list[Path]:
    platforms = [f"--platform=manylinux_{glibc}_aarch64" for glibc in _GLIBC]
    abis = ["--python-version=311", "--implementation=cp", "--abi=cp311", "--abi=abi3"]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    _run(*pip, *platforms, *abis, f"--requirement={_WHEELS}", f"--dest={folder}")
    return sorted(folder.glob("*.whl"))


def _run(*command: str, folder: Path | None = None) -> None:
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise NotAvailable(f"'{command[0]}' failed: {said}; look at the network and try again")


def main(args: Sequence[str]) -> int:
    """`python -m targets.remote.sysroot FOLDER`."""
    if len(args) != 1:
        sys.stderr.write("usage: python -m targets.remote.sysroot FOLDER\n")
        return 2
    try:
        prepare_sysroot(Path(args[0]))
    except SlmcError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
