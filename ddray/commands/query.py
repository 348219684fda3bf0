"""`ddray query`: one SELECT over the measurements of the sweeps that were run here."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ddray.errors import RequestError, show, suggest
from ddray.results import results_of
from ddray.settings import Folders

Form = Literal["table", "csv", "json", "parquet"]
TABLE = "measurements"
SHOWN = 40
"""Rows of a table in a terminal; the other forms hold all."""
NARROWEST = 5
"""Characters that a column of a table takes at least, with the space beside it."""


def query(folders: Folders, sql: str, sweeps: Sequence[str] = ()) -> Any:
    """Answer a question.

    The engine is DuckDB, without access to files, the network, extensions or Python's variables: all that a query can
    see is the table ``measurements``.

    Args:
        folders: Where results are.
        sql: One SELECT.
        sweeps: Names of the sweeps it is about; none: all that have results here.

    Returns:
        A ``pyarrow.Table``.

    Raises:
        RequestError: No such sweep, or nothing that DuckDB can answer.
    """
    import duckdb
    import pyarrow as pa
    from pyarrow import dataset

    sources = [dataset.dataset(path) for path in _tables(folders, sweeps)]
    try:
        schema = pa.unify_schemas([source.schema for source in sources], promote_options="permissive")
        every = dataset.dataset([source.replace_schema(schema) for source in sources])
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise RequestError(
            f"{TABLE}: the tables of these sweeps do not go together; got {error}. Name one with --sweep, or make "
            "them anew with `ddray collect`."
        ) from error
    with duckdb.connect(config={"enable_external_access": False, "python_enable_replacements": False}) as connection:
        connection.register(TABLE, every)
        connection.execute("SET lock_configuration = true")
        try:
            statements = connection.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                kinds = ", ".join(statement.type.name for statement in statements) or "nothing"
                raise RequestError(f"query: got {kinds}; expected one SELECT, like: {EXAMPLE}")
            return connection.sql(sql).to_arrow_table()
        except duckdb.Error as error:
            said = " ".join(str(error).split("\n\nLINE")[0].split())
            if isinstance(error, duckdb.BinderException):
                said += f". {TABLE} has the columns {', '.join(schema.names)}."
            elif isinstance(error, duckdb.CatalogException):
                said += f" There is one table, {TABLE}."
            raise RequestError(f"query: {said}") from error


EXAMPLE = f"select method, ipc, avg(value) from {TABLE} where metric = 'test_acc' group by all"


def _tables(folders: Folders, sweeps: Sequence[str]) -> list[Path]:
    there = sorted(path.parent.name for path in folders.results.glob("*/measurements.parquet"))
    names = (
        list(dict.fromkeys(Path(name).stem if name.endswith((".yaml", ".yml")) else name for name in sweeps)) or there
    )
    for name in names:
        if name not in there:
            raise RequestError(
                f"--sweep {name}: has no results below {folders.results}; got results of {', '.join(there) or 'none'}. "
                f"{suggest(name, there)}".rstrip()
            )
    if not names:
        raise RequestError(f"{folders.results}: no sweep has results here yet. Run: ddray sweep sweeps/quickstart.yaml")
    return [results_of(folders, name).measurements for name in names]


def written(answer: Any, form: Form, into: Path | None) -> str:
    """An answer in a form; "" when it went into a file."""
    if form == "parquet":
        from pyarrow import parquet

        if into is None:
            raise RequestError("--format parquet: is no text; expected a file. Name one with --out FILE.")
        parquet.write_table(answer, into)
        return ""
    text = {"table": _table, "csv": _csv, "json": _json}[form](answer)
    if into is None:
        return text
    into.write_text(text, encoding="utf-8")
    return ""


def _csv(answer: Any) -> str:
    from pyarrow import csv

    sink = io.BytesIO()
    csv.write_csv(answer, sink)
    return sink.getvalue().decode()


def _json(answer: Any) -> str:
    import json

    return json.dumps(answer.to_pylist(), default=str) + "\n"


def _table(answer: Any) -> str:
    """Rows as wide as the terminal, the first ``SHOWN`` of them; where they are wider, a line for each value."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    numbers = [_is_number(field.type) for field in answer.schema]
    for name, number in zip(answer.column_names, numbers, strict=True):
        table.add_column(Text(name), justify="right" if number else "left", overflow="fold")
    for row in answer.slice(0, SHOWN).to_pylist():
        table.add_row(*(Text(_cell(value)) for value in row.values()))
    console = Console(file=io.StringIO(), width=shutil.get_terminal_size((160, 40)).columns)
    more = f"... and {answer.num_rows - SHOWN} more; --format csv has all\n" if answer.num_rows > SHOWN else ""
    if console.measure(table).minimum > console.width or NARROWEST * answer.num_columns > console.width:
        return "\n".join(map(_record, answer.slice(0, SHOWN).to_pylist())) + more
    with console.capture() as printed:
        console.print(table)
    return "\n".join(line.rstrip() for line in printed.get().splitlines()) + "\n" + more


def _record(row: dict[str, Any]) -> str:
    wide = max(map(len, row))
    return "".join(f"{name:<{wide}}  {_cell(value)}\n" for name, value in row.items())


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind))


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else str(value) if isinstance(value, str) else show(value)
