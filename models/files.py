"""Tables from files of users: Parquet, CSV or JSON lines, told apart by their first bytes; unreadable ones refused in a line."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import pyarrow.json

from models.errors import EddyError

_ID_COLUMNS = ("user_id", "item_id", "event_id")


def path_error(path: Path, message: str) -> EddyError:
    """An EddyError about this file."""
    return EddyError(f"{path}: {message}")


def read_columns(path: Path, required: Sequence[str], optional: Sequence[str]) -> pa.Table:
    """The required columns, and those of the optional ones that the file or folder has, in the file's row order.

    Errors: EddyError when the path is missing, unreadable, in no known format, or lacks a required column.
    """
    try:
        table = _table(path, [*required, *optional])
    except FileNotFoundError:
        raise path_error(path, "no such file; check the path") from None
    except (OSError, pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise path_error(path, f"cannot be read ({reason}); give an undamaged Parquet, CSV or JSON-lines file") from None
    missing = [name for name in required if name not in table.column_names]
    if missing:
        raise path_error(path, f"no column {' and no '.join(missing)}; it has {', '.join(table.column_names) or 'none'}")
    return table.select([name for name in [*required, *optional] if name in table.column_names])


def _table(path: Path, wanted: Sequence[str]) -> pa.Table:
    if path.is_dir():
        dataset = pa.dataset.dataset(path, format="parquet", partitioning="hive")
        if not dataset.files:
            raise path_error(path, "no Parquet file in this folder")
        return dataset.to_table(columns=[name for name in dataset.schema.names if name in wanted] or None)
    with path.open("rb") as file:
        start = file.read(256).lstrip()
    if not start:
        raise path_error(path, "the file is empty")
    if start.startswith(b"PAR1") or path.suffix in (".parquet", ".pq"):
        dataset = pa.dataset.dataset(path, format="parquet")
        return dataset.to_table(columns=[name for name in dataset.schema.names if name in wanted] or None)
    if start.startswith(b"{") or ".jsonl" in path.suffixes:
        return pa.json.read_json(path)
    as_text = {name: pa.string() for name in _ID_COLUMNS}  # "007" stays "007"
    return pa.csv.read_csv(path, convert_options=pa.csv.ConvertOptions(column_types=as_text))
