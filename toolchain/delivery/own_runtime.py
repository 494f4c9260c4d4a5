"""slmc-run beside ONNX Runtime at packaging: whether its tokenizer is the model's, and what it takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from exporters.artifact.errors import NotAvailable, SlmcError
from exporters.artifact.manifest import MANIFEST_NAME, Manifest, OwnRuntime
from exporters.artifact.runtimes import SLMC_RUN
from targets.cpus.catalog import HOST, named_cpu
from targets.device.measurement import Measurement
from targets.device.native import platform_name
from targets.measure.child import measure
from targets.runtime.program import MEASUREMENT, installed_program, worker_words
from targets.runtime.tokens import encode
from toolchain.delivery import package
from toolchain.delivery.boards import request_for
from toolchain.delivery.validate import measured
from toolchain.model.text import Text

PROVEN_TOKENS = 2**16
"""So many tokens of every text are read by both tokenizers."""


def tokenizer_difference(program: Path, path: Path, tokenizer: Tokenizer, texts: Sequence[Text]) -> str | None:
    """Why slmc-run cannot stand in for the tokenizers library on these texts; None where it gives the same ids.

    Args:
        path: the tokenizer.json that goes along; tokenizer: the same, opened by the library.
    """
    for text in texts:
        said = tokenizer.decode(text.ids[:PROVEN_TOKENS].tolist(), skip_special_tokens=False)
        expected = tokenizer.encode(said, add_special_tokens=False).ids
        try:
            found = encode(program, path, said)
        except SlmcError as error:
            return str(error)
        if list(found) != expected:
            pairs = zip(found, expected, strict=False)
            at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(found), len(expected)))
            return f"it gives other ids than the tokenizers library in {text.name}, from token {at} on"
    return None


def own_runtime(
    staging: Path, manifest: Manifest, tokenizer: Tokenizer, texts: Sequence[Text], vocabulary: int, *,
    threads: int, weight_bytes_per_token: int,
) -> OwnRuntime:  # fmt: skip
    """What the manifest says of slmc-run in a staging folder that holds all files but the manifest and its sums.

    Args:
        texts: the calibration and the evaluation text; the last one is what is read while time is taken.
    """
    brought = {path.parent.name: path for path in sorted(staging.glob(f"native/*/{SLMC_RUN}"))}
    programs = {platform: path.stat().st_size for platform, path in brought.items()}
    program = brought.get(platform_name())
    try:
        serving = (program or installed_program()).resolve()
    except NotAvailable as error:
        return OwnRuntime(programs, f"it was not compared with the tokenizers library: {error}")
    difference = tokenizer_difference(serving, staging / "tokenizer.json", tokenizer, texts)
    if program is None:
        return OwnRuntime(programs, difference)
    listed = dataclasses.replace(manifest, files=package.write_sums(staging))
    (staging / MANIFEST_NAME).write_text(listed.to_json(), encoding="utf-8")
    request = request_for(manifest.io, texts[-1], vocabulary, threads)
    try:
        result: Measurement = measure(staging, manifest.io, request, command=worker_words(serving, MEASUREMENT))
    except SlmcError as error:
        raise SlmcError(f"{SLMC_RUN} does not run this artifact ({error}); build without --runtime") from error
    finally:
        (staging / MANIFEST_NAME).unlink()
    return OwnRuntime(programs, difference, measured(result, named_cpu(HOST), weight_bytes_per_token))
