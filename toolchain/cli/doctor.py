"""slmc doctor: versions, kernels, the machine's condition, and what is missing with the way to get it."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

import click

from exporters.artifact.errors import NotAvailable
from exporters.artifact.native_library import library_path
from targets.cpus.catalog import named_cpu
from targets.device.machine import advice, device_facts
from targets.device.native import LIBRARY_NAME, isa_name
from toolchain.cli.console import Console
from toolchain.cli.options import command

PACKAGES = ("slmc", "torch", "onnx", "onnxruntime", "onnxscript", "numpy", "safetensors", "tokenizers")

KERNELS = {"x86_64": ("portable", "avx2", "avx2-vnni", "avx512"), "aarch64": ("portable", "neon", "neon-dotprod")}
"""What the library of each architecture chooses from when it is loaded: exporters/native/linear_*.cc."""


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
    cpu, device = named_cpu("host"), device_facts()
    document |= {"cpu": cpu.model, "isa": cpu.isa, "cores": cpu.cores} | device
    rows = [(k, ("unknown" if k in device else "missing") if v is None else str(v)) for k, v in document.items()]
    console.table("", ("part", "found"), rows)
    document |= {"missing": missing, "advice": list(advice(device))}
    ours = f"{LIBRARY_NAME} holds kernels for {', '.join(KERNELS.get(cpu.architecture, ('none',)))}"
    note = f"{ours}; without it an artifact runs on its ONNX functions: slower and with more memory"
    console.result(document, "\n".join([*(missing or ["nothing is missing"]), *advice(device), note]))
    return NotAvailable.exit_code if missing else 0
