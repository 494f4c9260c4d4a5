"""A client of Dask, imported only where it is asked for, and what Dask raises in one line each."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import importlib.util
import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from exporters.artifact.errors import NotAvailable, SlmcError
from targets.device.memory import available_bytes
from targets.device.quantities import parse_bytes

EXTRA: Final = "pip install 'slmc[cluster]'"
CONNECT_S: Final = 10
JOIN_S: Final = 60
DEATHS: Final = 8
"""How often the workers that a task ran on may die before it is called the task's fault."""


def dask_module(module: str) -> Any:
    """A module of Dask, whose own types are incomplete."""
    return importlib.import_module(module)


def workers_of(client: Any) -> dict[str, Any]:
    found: dict[str, Any] = client.scheduler_info(n_workers=-1)["workers"]
    return found


def ended(futures: Iterable[Any]) -> Iterator[Any]:
    """Futures, in the order in which they end."""
    yield from dask_module("distributed").as_completed(list(futures))


def memory_bound(asked: str | None, workers: int) -> int:
    """Bytes of one worker: what was asked for, or an equal share of what is free."""
    return parse_bytes(asked, "--worker-memory") if asked else (available_bytes() or 1 << 32) // workers


@contextlib.contextmanager
def connected_client(workers: int, address: str | None, memory_bytes: int, say: Callable[[str], None]) -> Iterator[Any]:
    """A client of a scheduler: the one that is named, or one of our own with its workers."""
    option = f"--cluster {address}" if address else f"--workers {workers}"
    try:
        dask = dask_module("dask")
        dask_module("distributed")
    except ModuleNotFoundError as error:
        raise NotAvailable(f"{option}: dask.distributed is not installed here; {EXTRA}") from error
    _silence()
    dask.config.set({"distributed.scheduler.allowed-failures": DEATHS, "distributed.comm.timeouts.connect": CONNECT_S})
    with contextlib.ExitStack() as stack:
        if address is None:
            place = stack.enter_context(tempfile.TemporaryDirectory(prefix="slmc-workers-", ignore_cleanup_errors=True))
            client = stack.enter_context(_local(workers, memory_bytes, place, stack))
        else:
            client = stack.enter_context(_connected(address))
        say(f"{option}: {len(workers_of(client))} at work{_seen_at(client)}")
        yield client


def _silence() -> None:
    """Every logger of Dask, each of which has a level of its own: what matters is raised, too."""
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _local(workers: int, memory_bytes: int, place: str, stack: contextlib.ExitStack) -> Any:
    """A client of so many processes here."""
    try:
        cluster = dask_module("distributed").LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, memory_limit=memory_bytes,
            dashboard_address=":0" if _has_dashboard() else None, local_directory=place,
            silence_logs=logging.CRITICAL,
        )  # fmt: skip
    except RuntimeError as error:
        raise NotAvailable(f"--workers {workers}: a process did not start ({error}); give fewer") from error
    return dask_module("distributed").Client(stack.enter_context(cluster))


def _connected(address: str) -> Any:
    advice = f"start one with 'dask scheduler' and workers with 'dask worker {address}'"
    try:
        client = dask_module("distributed").Client(address, timeout=CONNECT_S)
    except (OSError, TimeoutError) as error:
        raise NotAvailable(f"--cluster {address}: no scheduler answers there; {advice}") from error
    except ValueError as error:
        raise SlmcError(f"--cluster {address}: no address ({error}); give one as tcp://host:8786") from error
    try:
        _wait_for(client, f"--cluster {address}: no workers; start some with 'dask worker {address}'")
    except NotAvailable:
        client.close()
        raise
    return client


def _wait_for(client: Any, message: str) -> None:
    try:
        client.wait_for_workers(1, timeout=JOIN_S)
    except TimeoutError as error:
        raise NotAvailable(message) from error


def _has_dashboard() -> bool:
    """Dask's own page needs a package that it does not bring."""
    return importlib.util.find_spec("bokeh") is not None


def _seen_at(client: Any) -> str:
    return f", seen at {client.dashboard_link}" if _has_dashboard() else ""


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """What Dask raises, in one line with what to do."""
    distributed = dask_module("distributed")
    gone = (
        distributed.comm.CommClosedError, distributed.client.FutureCancelledError, concurrent.futures.CancelledError,
        asyncio.CancelledError, OSError,
    )  # fmt: skip
    try:
        yield
    except distributed.KilledWorker as error:
        raise NotAvailable(
            f"a task ended {DEATHS} workers: each may need more memory; give --worker-memory more, or fewer --workers"
        ) from error
    except gone as error:
        raise NotAvailable(
            "the scheduler of the workers has ended; start it again, and repeat the command with --resume"
        ) from error
    except ModuleNotFoundError as error:
        raise NotAvailable(
            f"the workers lack {error.name}; run there: pip install 'slmc[toolchain,cluster]'"
        ) from error
