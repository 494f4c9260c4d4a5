"""Which slmc-run serves an artifact, and how it is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from exporters.artifact.errors import NotAvailable
from exporters.artifact.manifest import Manifest
from exporters.artifact.native_library import library_path
from exporters.artifact.runtimes import SLMC_RUN
from targets.device.native import platform_name

MEASUREMENT: Final = "measurement"
EVALUATION: Final = "evaluation"
PROBED: Final = "probed"
"""Jobs that it answers as targets.device.worker, .evaluation and .probing do."""


def installed_program() -> Path:
    """The program of this installation.

    Raises:
        NotAvailable: it has none.
    """
    path = library_path().parent / SLMC_RUN
    if not path.is_file():
        raise NotAvailable(f"{path} is not there; install again with 'pip install .' (a C++17 compiler is needed)")
    return path


def brought_program(artifact: Path, manifest: Manifest, platform: str) -> Path | None:
    """The program that an artifact brings for a platform ('linux-aarch64'), if it brings one."""
    name = f"native/{platform}/{SLMC_RUN}"
    return artifact / name if name in manifest.files else None


def serving_program(artifact: Path, manifest: Manifest, platform: str, *, own: bool) -> Path:
    """The program for a platform.

    Args:
        own: whether it may be the artifact's own, which is code of whoever made it.

    Raises:
        NotAvailable: neither the artifact nor this installation has one.
    """
    brought = brought_program(artifact, manifest, platform)
    if own and brought is not None:
        return brought
    if platform == platform_name():
        return installed_program()
    there = sorted(name.split("/")[1] for name in manifest.files if name.endswith(f"/{SLMC_RUN}"))
    raise NotAvailable(
        f"{artifact}: no {SLMC_RUN} for {platform}, which that machine is (the artifact has "
        f"{', '.join(there) or 'none'}, this installation {platform_name()}); compile it with 'make runtime-cross' and "
        "build the artifact with --runtime FILE"
    )


def given_program(programs: Mapping[str, Path], platform: str) -> Path:
    """The program for a platform among those that were given by platform.

    Raises:
        NotAvailable: none is.
    """
    if platform not in programs:
        raise NotAvailable(
            f"no {SLMC_RUN} for {platform}, which that machine is (given for {', '.join(sorted(programs))}); "
            "compile it with 'make runtime-cross' and give it with --runtime FILE"
        )
    return programs[platform]


def worker_words(program: Path | str, kind: str) -> tuple[str, ...]:
    """The command line that answers one job: MEASUREMENT, EVALUATION or PROBED."""
    return (str(program), "--worker", kind)


def served_words(program: Path, artifact: Path, threads: int) -> Sequence[str]:
    """The command line that answers calls of one artifact until its stdin ends."""
    return (str(program), str(artifact), "--serve", "--threads", str(threads))
