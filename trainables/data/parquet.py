"""Rows of Parquet files in the Hugging Face hub's layout: a struct of encoded ``bytes``, and a label number."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from trainables.data.known import KnownDataset
from trainables.data.layout import DataBroken

Row = tuple[str, int, "bytes | Path"]
"""(where it stands, label, encoded image)."""


def parquet_rows(files: list[Path], known: KnownDataset) -> tuple[int, Iterator[Row]]:
    """(number of rows, the rows) of one split. The footers are read at once, so a truncated file shows early.

    Args:
        files: The split's shards, sorted.
        known: Names the label column; ``label`` is taken where that is absent.

    Raises:
        DataBroken: If a shard is missing or a file cannot be read; the rows, when taken, raise it with file and row.
    """
    import pyarrow.parquet as pq

    absent = _absent_shards(files)
    if absent:
        raise DataBroken(f"{files[0].parent}: missing shard; got {len(files)} file(s); expected {absent[0]} too.")
    total = 0
    for file in files:
        with readable(file, "Parquet file"):
            total += pq.read_metadata(file).num_rows
    if total == 0:
        raise DataBroken(f"{files[0]}: no rows; got 0 images; expected some of each of {known.num_classes} classes.")
    return total, (row for file in files for row in _shard_rows(file, known))


def _shard_rows(file: Path, known: KnownDataset) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with readable(file, "Parquet file"):
        shard = pq.ParquetFile(file)
    with shard:
        schema = shard.schema_arrow
        image_column = _column(file, schema.names, "image", ("img", "image"))
        label_column = _column(file, schema.names, "label", (known.label_column, "label"))
        if not pa.types.is_integer(schema.field(label_column).type):
            got = schema.field(label_column).type
            raise DataBroken(f"{file}: column {label_column}: wrong type; got {got}; expected label numbers.")
        kind = schema.field(image_column).type
        if not (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0):
            raise DataBroken(f"{file}: column {image_column}: wrong type; got {kind}; expected a struct with bytes.")
        start = 0
        for group in range(shard.num_row_groups):
            rows = shard.metadata.row_group(group).num_rows
            with readable(file, "Parquet file", f", rows {start} to {start + rows - 1}"):
                table = shard.read_row_group(group, columns=[image_column, label_column])
                labels = table[label_column].to_pylist()
                encoded = [entry and entry["bytes"] for entry in table[image_column].to_pylist()]
            for offset, (label, image) in enumerate(zip(labels, encoded, strict=True)):
                where = f"{file}, row {start + offset}"
                if label is None:
                    raise DataBroken(f"{where}: no label; got null in {label_column}; expected a number.")
                if not isinstance(image, bytes):
                    raise DataBroken(f"{where}: no image; got null in {image_column}.bytes; expected a PNG or JPEG.")
                yield where, label, image
            start += rows


def _column(file: Path, names: list[str], what: str, wanted: tuple[str, ...]) -> str:
    for name in wanted:
        if name in names:
            return name
    either = " or ".join(dict.fromkeys(wanted))
    raise DataBroken(f"{file}: no {what} column; got columns {', '.join(names)}; expected {either}.")


def _absent_shards(files: list[Path]) -> list[str]:
    """Names of Parquet shards that the names of the others promise (``-00000-of-00003``)."""
    absent: list[str] = []
    names = {file.name for file in files}
    for file in files:
        numbered = re.fullmatch(r"(.+)-(\d+)-of-(\d+)\.parquet", file.name)
        if numbered:
            stem, digits, total = numbered[1], len(numbered[2]), numbered[3]
            wanted = {f"{stem}-{number:0{digits}d}-of-{total}.parquet" for number in range(int(total))}
            absent.extend(sorted(wanted - names))
    return list(dict.fromkeys(absent))


@contextlib.contextmanager
def readable(file: Path, what: str, rows: str = "") -> Iterator[None]:
    """Turn whatever a reading library raises into one kind of error that names the file.

    Args:
        file: What is read inside the ``with``.
        what: What it should be, in words.
        rows: Which rows are read, as the message shall say it.

    Raises:
        DataBroken: In place of any other exception.
    """
    try:
        yield
    except DataBroken:
        raise
    except Exception as error:  # the libraries' own classes: ArrowInvalid, OSError, zlib.error, struct.error, ...
        reason = " ".join(str(error).split())
        raise DataBroken(
            f"{file}{rows}: cannot be read; got {type(error).__name__}: {reason}; expected a whole {what}. "
            "Fetch the file again."
        ) from error
