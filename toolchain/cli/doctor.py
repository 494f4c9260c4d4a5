"""slmc doctor: versions, kernels, instruction set, and what is missing with the way to get it."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

import click

from exporters.errors import NotAvailable
from exporters.native_library import library_path
from targets.cpu import named_cpu
from targets.native import isa_name
from toolchain.cli.console import Console
from toolchain.cli.options import command

PACKAGES = ("slmc", "torch", "onnx", "onnxruntime", "onnxscript", "numpy", "safetensors", "tokenizers")


@click.command("doctor")
@command
def doctor_command(console: Console) -> int:
    """Show what is installed and what is missing; exit code 5 if a build could not work."""
    document: dict[str, Any] = {"python": platform.python_version(), "platform": platform.platform()}
    missing = []
    for name in PACKAGES:
        try:
            document[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            document[name] = None
            missing.append(f"{name}: pip install '.[toolchain]'")
    try:
        library = library_path()
        document |= {"operators": str(library), "kernels": isa_name(library)}
    except NotAvailable as error:
        document |= {"operators": None, "kernels": None}
        missing.append(str(error))
    document["cpu"] = named_cpu("host").model
    rows = [(k, "missing" if v is None else str(v)) for k, v in document.items()]
    console.table("", ("part", "found"), rows)
    document["missing"] = missing
    note = "an artifact runs without the operator library too, on its ONNX functions: slower and with more memory"
    console.result(document, "\n".join([*missing, note] if missing else ["nothing is missing", note]))
    return NotAvailable.exit_code if missing else 0
