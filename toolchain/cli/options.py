"""Options that several commands share, and how errors become messages and exit codes."""

from __future__ import annotations

import contextlib
import errno
import functools
import sys
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from exporters.artifact.errors import NotAvailable, SlmcError
from exporters.artifact.manifest import MANIFEST_NAME
from toolchain.cli.console import Console, plain
from toolchain.cli.main import INTERRUPTED, give_up_streams
from toolchain.pipeline.spec import Spec

F = TypeVar("F", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)
THREADS = click.IntRange(1, 256)
UNEXPECTED = 1


def command(function: Callable[..., int | None]) -> Callable[..., None]:
    """Give a command its console (--json, -q, -v); it returns the exit code; an SlmcError becomes one line."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document to stdout and nothing else.")
    @click.option("-q", "--quiet", is_flag=True, help="No progress and no notes.")
    @click.option("-v", "--verbose", is_flag=True, help="Print more; show the traceback of an unexpected error.")
    @functools.wraps(function)
    def run(*args: Any, as_json: bool, quiet: bool, verbose: bool, **kwargs: Any) -> None:
        console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
        try:
            _check_signatures(kwargs.pop("require_signature", None), kwargs.values())
            code = function(console, *args, **kwargs) or 0
            sys.stdout.flush()
        except SlmcError as error:
            code = _fail(str(error), error.exit_code)
        except KeyboardInterrupt as stop:
            click.echo(f"interrupted: {stop}" if str(stop) else "interrupted", err=True)
            code = INTERRUPTED
        except BrokenPipeError:  # the reader has seen enough
            code = 0
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except Exception as error:
            if verbose:
                raise
            code = _fail(*_explained(error))
        give_up_streams()
        sys.exit(code)

    return run


def _check_signatures(key: Path | None, values: Iterable[Any]) -> None:
    """Every artifact among a command's arguments must be signed, if a key is given, before anything opens it."""
    if key is None:
        return
    from toolchain.delivery.signing import check_signature

    given = [item for value in values for item in (value if isinstance(value, tuple) else (value,))]
    artifacts = [item for item in given if isinstance(item, Path) and (item / MANIFEST_NAME).is_file()]
    if not artifacts:
        raise SlmcError("--require-signature: no artifact is given that could be signed")
    for artifact in artifacts:
        check_signature(artifact, key)


def _fail(text: str, code: int) -> int:
    with contextlib.suppress(OSError):  # where even that stream is gone, the exit code says it
        click.echo("error: " + plain(" ".join(text.splitlines())), err=True)
    return code


def _explained(error: Exception) -> tuple[str, int]:
    """Text and exit code for what no part of slmc has foreseen."""
    if isinstance(error, MemoryError):
        return "memory ran out; close other programs or use a smaller model", NotAvailable.exit_code
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename is not None else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"{where}no space left on the disk; free some and repeat the command", NotAvailable.exit_code
        return f"{where}{error.strerror}; check the path and who may read and write it", SlmcError.exit_code
    what = f"{type(error).__name__}: {error}"
    return f"{what}; this is a fault of slmc: repeat with -v for the traceback and report it", UNEXPECTED


def stack(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator, in this order in the help."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def spec_option(name: str) -> Callable[[F], F]:
    """The flag of an option of Spec, which says its type and its help."""
    field = Spec.model_fields[name]
    arguments: dict[str, Any] = {"help": field.description}
    kinds = typing.get_args(field.annotation) or (field.annotation,)
    if Path in kinds:
        arguments["type"] = PATH
    elif int in kinds:
        arguments["type"] = int
    if typing.get_origin(field.annotation) in (tuple, dict):
        arguments["multiple"] = True
    return click.option(f"--{name.replace('_', '-')}", name, **arguments)


def spec_options(*names: str) -> Callable[[F], F]:
    """Several of them, in this order in the help."""
    return stack(*(spec_option(name) for name in names))


family_option = spec_option("family")

signature_option = click.option(
    "--require-signature",
    type=PATH,
    help="Public key, Ed25519: refuse artifacts not signed with its private half.",
)

model_options = stack(click.argument("model", type=PATH), spec_option("tokenizer"), family_option)

text_field_option = spec_option("text_field")

text_options = spec_options("calibration", "eval", "text_field")

search_options = stack(
    spec_options(*(name for name in Spec.model_fields if name not in ("model", "output", "tokenizer", "family"))),
    click.option("-c", "--config", type=PATH, help="YAML file with the same keys."),
    click.option("--set", "settings", multiple=True, help="KEY=VALUE that overrides the file. Repeatable."),
)


def pins(layers: tuple[str, ...]) -> dict[str, str]:
    """REGEX=FORMAT texts as a mapping.

    Raises:
        SlmcError: one has no '='.
    """
    result = {}
    for text in layers:
        pattern, equals, name = text.rpartition("=")
        if not equals or not pattern:
            raise SlmcError(f"--layer {text!r}: expected REGEX=FORMAT, for example 'head=int8'")
        result[pattern] = name
    return result
