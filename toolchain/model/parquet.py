"""Parquet files, read by pyarrow where that is installed."""

from __future__ import annotations

import importlib
import io
from pathlib import Path
from typing import Any, Final

from exporters.artifact.errors import NotAvailable, SlmcError
from toolchain.model.records import Record

PARQUET_MAGIC: Final = b"PAR1"


def parquet_records(path: Path, raw: bytes, limit_bytes: int) -> tuple[Record, ...]:
    """The rows of a Parquet file, of the columns of texts and integers alone.

    Raises:
        NotAvailable: pyarrow is not installed.
        SlmcError: it is damaged, or larger than so many bytes when unpacked.
    """
    try:
        arrow: Any = importlib.import_module("pyarrow")
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise NotAvailable(
            f"{path}: a Parquet file, and pyarrow, which reads them, is not installed; pip install pyarrow, or give "
            "JSON Lines"
        ) from error
    try:
        file = parquet.ParquetFile(io.BytesIO(raw))
        groups = (file.metadata.row_group(i) for i in range(file.metadata.num_row_groups))
        size = sum(group.total_byte_size for group in groups)
        if size > limit_bytes:
            raise SlmcError(f"{path}: {size} bytes when unpacked, at most {limit_bytes} are read; give a part of it")
        rows = file.read(columns=[f.name for f in file.schema_arrow if _readable(arrow.types, f.type)]).to_pylist()
    except (arrow.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise SlmcError(f"{path}: a Parquet file that is damaged ({reason}); copy it again") from error
    return tuple(Record(f"row {i}", row) for i, row in enumerate(rows, 1))


def _readable(types: Any, kind: Any) -> bool:
    value = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_string(value) or types.is_large_string(value) or types.is_integer(value))
