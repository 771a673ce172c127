"""Event files as they are in the wild, written in every format, and what is to be read from them."""

import bz2
import csv
import decimal
import gzip
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st

from eddy.models.errors import EddyError
from eddy.models.event_limits import MAX_VALUE
from eddy.models.logs.events import DEFAULT_TYPE, Events, read_events

Row = dict[str, Any]

FIELDS = ("user_id", "item_id", "timestamp", "event_type", "value", "event_id")

S = 1_700_000_000
"""a moment of 2023 in seconds"""


def rows_of(*rows: Sequence[Any]) -> list[Row]:
    return [dict(zip(FIELDS, [*row, None, None, None][:6], strict=True)) for row in rows]


def csv_text(rows: Sequence[Row], separator: str = ",", quoting: Any = csv.QUOTE_MINIMAL) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, quoting=quoting)
    writer.writerow(["context", *FIELDS])
    writer.writerows(
        ['{"a": 1}', *("" if row[name] is None else row[name] for name in FIELDS)] for row in rows
    )
    return text.getvalue().encode()


def json_lines(rows: Sequence[Row], absent_as_null: bool = True) -> bytes:
    return b"".join(
        json.dumps(
            {"context": [1] if n % 2 else {"a": n}}
            | {name: value for name, value in row.items() if absent_as_null or value is not None}
        ).encode()
        + b"\n"
        for n, row in enumerate(rows)
    )


def parquet(rows: Sequence[Row], types: dict[str, pa.DataType] | None = None) -> bytes:
    """Columns without any value are left out."""
    columns = {name: [row[name] for row in rows] for name in FIELDS}
    kept = {
        name: pa.array(column, (types or {}).get(name))
        for name, column in columns.items()
        if any(value is not None for value in column)
    }
    file = io.BytesIO()
    pq.write_table(pa.table({"context": pa.array([{"a": 1}] * len(rows)), **kept}), file)
    return file.getvalue()


def in_one(name: str, content: Callable[[Sequence[Row]], bytes]) -> Callable[[Path, Sequence[Row]], Path]:
    def write(folder: Path, rows: Sequence[Row]) -> Path:
        path = folder / name
        path.write_bytes(content(rows))
        return path

    return write


def in_folder(*contents: Callable[[Sequence[Row]], bytes]) -> Callable[[Path, Sequence[Row]], Path]:
    """A file for every row or two, of each format in turn."""

    def write(folder: Path, rows: Sequence[Row]) -> Path:
        path = folder / "log"
        (path / "deeper").mkdir(parents=True)
        (path / "_SUCCESS").write_bytes(b"")
        (path / ".part-0.crc").write_bytes(b"\0\1")
        for n, start in enumerate(range(0, len(rows), 2)):
            part = path / "deeper" / f"part-{n:05d}"
            part.write_bytes(contents[n % len(contents)](rows[start : start + 2]))
        return path

    return write


def zstd(content: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(content, asbytes=True))


FORMATS = {
    "parquet": in_one("e.parquet", parquet),
    "typed parquet": in_one(
        "e.parquet",
        lambda rows: parquet(
            rows,
            {
                "user_id": pa.dictionary(pa.int32(), pa.large_string()),
                "item_id": pa.binary(),
                "timestamp": pa.decimal128(38, 0),
                "value": pa.float32(),
                "event_id": pa.large_string(),
            },
        ),
    ),
    "csv": in_one("e.csv", csv_text),
    "quoted csv": in_one("e.csv", lambda rows: csv_text(rows, quoting=csv.QUOTE_ALL)),
    "semicolons and a byte-order mark": in_one("e.csv", lambda rows: b"\xef\xbb\xbf" + csv_text(rows, ";")),
    "gzip'd tabs": in_one("e.tsv", lambda rows: gzip.compress(csv_text(rows, "\t"))),
    "json lines": in_one("e.jsonl", json_lines),
    "json lines, absent fields left out": in_one("e", lambda rows: json_lines(rows, False)),
    "zstd'd json lines": in_one("e.jsonl.zst", lambda rows: zstd(json_lines(rows))),
    "json array with a byte-order mark": in_one(
        "e.json",
        lambda rows: (
            b"\xef\xbb\xbf "
            + json.dumps([json.loads(line) for line in json_lines(rows).splitlines()]).encode()
        ),
    ),
    "a folder of parquet": in_folder(parquet),
    "a folder of everything": in_folder(parquet, csv_text, lambda rows: bz2.compress(json_lines(rows))),
}

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=6)

NAMES = TEXT | st.sampled_from(["7", "07", "7.0", "NA", "null", "NaN", "true", " x ", '"', "a,b;c\td|e"])

LOGS = st.lists(
    st.fixed_dictionaries(
        {
            "user_id": NAMES,
            "item_id": NAMES,
            "timestamp": st.integers(S, S + 3),
            "event_type": st.none() | NAMES,
            "value": st.none() | st.floats(width=32, allow_nan=False, allow_infinity=False),
            "event_id": st.none() | NAMES,
        }
    ),
    min_size=1,
    max_size=6,
)


def written_out(events: Events) -> list[tuple[Any, ...]]:
    ids = events.event_id or [""] * len(events)
    return [
        (
            events.users[u],
            events.items[i],
            t,
            events.types[y],
            None if np.isnan(v) else float(v),
            ids[n] or None,
        )
        for n, (u, i, t, y, v) in enumerate(
            zip(events.user, events.item, events.timestamp.tolist(), events.type, events.value, strict=True)
        )
    ]


def expected(rows: Sequence[Row]) -> list[tuple[Any, ...]]:
    return [
        (
            row["user_id"], row["item_id"], row["timestamp"] * 1000, row["event_type"] or DEFAULT_TYPE,
            None if row["value"] is None else float(np.float32(np.clip(row["value"], -MAX_VALUE, MAX_VALUE))),
            row["event_id"],
        )
        for row in sorted(rows, key=lambda row: row["timestamp"])
    ]  # fmt: skip


WHOLE = {
    "int8": pa.array([7], pa.int8()),
    "uint64": pa.array([7], pa.uint64()),
    "float64, as where some are absent": pa.array([7.0]),
    "float32": pa.array([7], pa.float32()),
    "decimal": pa.array([decimal.Decimal("7.00")]),
    "text": pa.array(["7"]),
    "dictionary": pa.array([7]).dictionary_encode(),
}


def table(folder: Path, name: str = "events.parquet", **columns: Any) -> Path:
    first = next(iter(columns.values()))
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    n = len(first)
    given = {"user_id": ["u"] * n, "item_id": ["i"] * n, "timestamp": [S + k for k in range(n)], **columns}
    pq.write_table(pa.table({key: column for key, column in given.items() if column is not None}), path)
    return path


def refused(path: Path, *messages: str, unit: str = "auto", file: Path | None = None) -> None:
    with pytest.raises(EddyError) as caught:
        read_events(path, unit)
    text = str(caught.value)
    assert text.startswith(f"{file or path}: ")
    assert all(message in text for message in messages), text
    assert "\n" not in text


def line(**changed: Any) -> str:
    return json.dumps({"user_id": "u", "item_id": "i", "timestamp": S, **changed}) + "\n"
