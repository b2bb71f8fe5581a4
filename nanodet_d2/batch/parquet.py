"""Rows as Parquet files, by pyarrow."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .shards import ShardFiles, Written

if TYPE_CHECKING:
    import pyarrow

ROWS_PER_FILE = 20_000  # about; a shard is a row group and stays whole
HEADER_KEY = "nanodet_d2"  # of a file's metadata
FOLDER = "parquet"


def require_pyarrow() -> None:
    """Raise ``ImportError`` where there is no pyarrow."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "--format parquet needs pyarrow: pip install 'nanodet-d2[parquet]'"
        ) from error


def write_parquet(
    output: Path, files: ShardFiles, shards: Sequence[Written], header: dict[str, Any]
) -> Path:
    """Write all rows as ``parquet/part-00000.parquet`` and so on; there is no such folder yet."""
    from pyarrow import parquet

    schema = _schema().with_metadata({HEADER_KEY: json.dumps(header)})
    part, folder = output / f"{FOLDER}.part", output / FOLDER
    part.mkdir()
    for number, group in enumerate(_groups(shards)):
        path = part / f"part-{number:05}.parquet"
        with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
            for shard in group:
                writer.write_table(_table(files.rows(shard), schema))
    os.replace(part, folder)
    return folder


def _schema() -> pyarrow.Schema:
    import pyarrow as pa

    detection = pa.struct(
        [
            ("category_id", pa.int32()),
            ("category", pa.string()),
            ("bbox", pa.list_(pa.float64(), 4)),  # x, y, width, height
            ("area", pa.float64()),
            ("score", pa.float64()),
        ]
    )
    return pa.schema(
        [
            ("file_name", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("error", pa.string()),
            ("detections", pa.list_(detection)),
        ]
    )


def _table(rows: Iterable[dict[str, Any]], schema: pyarrow.Schema) -> pyarrow.Table:
    import pyarrow as pa

    return pa.Table.from_pylist([{**x, "file_name": _text(x["file_name"])} for x in rows], schema)


def _text(name: str) -> str:
    """Bytes of a name that are not UTF-8, which Parquet has no room for, as Python's escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def _groups(shards: Sequence[Written]) -> list[list[Written]]:
    groups: list[list[Written]] = [[]]
    for shard in shards:
        if sum(x.rows for x in groups[-1]) + shard.rows > ROWS_PER_FILE and groups[-1]:
            groups.append([])
        groups[-1].append(shard)
    return groups
