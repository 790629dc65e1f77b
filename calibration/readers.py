"""Files of measurements to one grid of numbers, whatever the format."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aimc_sim.errors import InputError, UsageError, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_BYTES = 512 * 2**20  # of text, unpacked; past it a person wants columns, not a table
_MOST_VALUES = 2**27  # of any format: 1 GiB as float64
_CHUNK = 2**20  # cells turned into numbers at once
_SNIFFED = 1000  # cells of a line that show whether it is a header
NUMBER, EMPTY, TEXT = 0, 1, 2
_SUFFIXES = {
    ".csv": "text", ".tsv": "text", ".txt": "text", ".dat": "text", ".xlsx": "xlsx",
    ".xlsm": "xlsx", ".parquet": "parquet", ".pq": "parquet", ".npz": "npz", ".h5": "hdf5",
    ".hdf5": "hdf5", ".hdf": "hdf5",
}
_DAMAGES = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error, RuntimeError)


@dataclass(frozen=True, eq=False)
class Grid:
    """Rows and columns as a file holds them.

    names : of the columns, or None where the file has no header.
    values : (rows, columns), NaN where a cell holds no number.
    kinds : (rows, columns) uint8, NUMBER, EMPTY or TEXT.
    texts : column -> row -> what is written there, of TEXT cells.
    first_line : line of the file on which row 0 stands, for messages.
    """

    names: tuple[str, ...] | None
    values: NDArray[np.float64]
    kinds: NDArray[np.uint8]
    texts: dict[int, dict[int, str]] = field(default_factory=dict)
    first_line: int = 1

    def label(self, column: int) -> str:
        """Return how a person calls a column: its name, or its number."""
        return str(column) if self.names is None else f"'{self.names[column]}'"


def read_grid(path: Path, *, sheet: str | None = None) -> Grid:
    """Return the rows and columns of a file.

    CSV, TSV and other separated text (also .gz), XLSX, Parquet, NPZ and HDF5, told apart by
    the name's ending. sheet : of an XLSX file, or the group or dataset of an HDF5 file.

    Raises
    ------
    InputError : absent, damaged, empty, too large, or of another format.
    UsageError : a sheet is missing or makes no sense; an extra is not installed.
    """
    asked = f"read measurements from {path}"
    if not path.is_file():
        raise InputError(asked, "there is no such file", "check the path")
    if path.stat().st_size == 0:
        raise InputError(asked, "the file is empty", "give a file with rows")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = bool(suffixes) and suffixes[-1] == ".gz"
    ending = (suffixes[-2] if packed and len(suffixes) > 1 else suffixes[-1]) if suffixes else ""
    kind = _SUFFIXES.get(ending)
    if kind is None or (packed and kind != "text"):
        raise InputError(
            asked,
            f"its ending is '{''.join(suffixes[-2:]) or 'none'}'",
            f"give one of {', '.join(_SUFFIXES)}, or text as .csv.gz or .tsv.gz",
        )
    if sheet is not None and kind not in ("xlsx", "hdf5"):
        raise UsageError(
            f"read sheet '{sheet}' of {path}", "this format has no sheets", "drop --sheet"
        )
    if path.stat().st_size > MOST_BYTES and kind in ("text", "xlsx"):
        raise _too_large(asked, path.stat().st_size)
    try:
        if kind == "text":
            grid = _read_text(path, packed, asked)
        elif kind == "xlsx":
            grid = _read_xlsx(path, sheet, asked)
        elif kind == "parquet":
            grid = _read_parquet(path, asked)
        elif kind == "npz":
            grid = _read_npz(path, asked)
        else:
            grid = _read_hdf5(path, sheet, asked)
    except _DAMAGES as error:
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(asked, f"it cannot be read ({text})", "save it again") from None
    if grid.values.size == 0:
        raise InputError(asked, "it has no rows of data", "give a file or sheet with rows")
    return grid


def _too_large(asked: str, size: int) -> InputError:
    return InputError(
        asked,
        f"it holds {size / 2**20:.0f} MiB, more than {MOST_BYTES // 2**20} MiB",
        "keep the columns that the fit needs, as .parquet or .npz, or every n-th cell",
    )


def _need(module: str, asked: str) -> Any:
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError:
        package = module.split(".")[0]
        raise UsageError(
            asked,
            f"the package {package} is not installed",
            "install it with pip install 'aimc-sim[tables]', or save the table as .csv",
        ) from None


class _Counted(io.RawIOBase):
    """A binary stream that refuses to unpack more than MOST_BYTES."""

    def __init__(self, inner: Any, asked: str) -> None:
        self._inner, self._asked, self._seen = inner, asked, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._inner.read(len(buffer))
        self._seen += len(data)
        if self._seen > MOST_BYTES:
            raise _too_large(self._asked, self._seen)
        buffer[: len(data)] = data
        return len(data)


def _read_text(path: Path, packed: bool, asked: str) -> Grid:
    opener = gzip.open if packed else open
    with opener(path, "rb") as head:
        start = head.read(4096)
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    else:
        encoding = "utf-8-sig" if _is_utf8(start) else "latin-1"
    with opener(path, "rb") as raw:
        counted = io.BufferedReader(_Counted(raw, asked), 2**16)
        lines = _data_lines(io.TextIOWrapper(counted, encoding, "replace", newline=""))
        # a line of 100,000 columns is no mistake here
        csv.field_size_limit(2**27)
        first = next(lines, None)
        if first is None:
            raise InputError(asked, "it has no rows of data", "give a file with rows")
        second = next(lines, "")
        lines = itertools.chain([first, second] if second else [first], lines)
        delimiter = _delimiter(first)
        if not delimiter:
            alone = len(second.split()) == 1  # 'G (uS)' over one column is one name
            rows: Iterator[Sequence[str]] = (
                [line.strip()] if alone else line.split() for line in lines
            )
        else:
            rows = csv.reader(lines, delimiter=delimiter)
        return _from_rows(rows, asked, decimal_comma=delimiter != ",")


def _delimiter(line: str) -> str:
    """Return what parts the cells of a line, "" where spaces do."""
    for sign in "\t;":  # a line of numbers with decimal commas holds more commas than these
        cells = line.split(sign)
        if len(cells) > 1 and all(_number(cell, True)[1] != TEXT for cell in cells):
            return sign
    sign = max("\t,;", key=line.count)
    return sign if sign in line else ""


def _is_utf8(start: bytes) -> bool:
    for cut in range(4):  # the last character may be cut
        try:
            start[: len(start) - cut].decode("utf-8")
        except UnicodeDecodeError:
            continue
        return True
    return False


def _data_lines(stream: Iterable[str]) -> Iterator[str]:
    for line in stream:
        if line.strip(" \t\r\n,;") and not line.startswith("#"):
            yield line


def _from_rows(rows: Iterator[Sequence[Any]], asked: str, *, decimal_comma: bool = False) -> Grid:
    """Return the grid of rows of cells, the first a header if it is mostly words."""
    start = list(itertools.islice(rows, 2))
    if not start:
        raise InputError(asked, "it has no rows of data", "give a file or sheet with rows")
    sample = [[_number(cell, decimal_comma)[1] for cell in row[:_SNIFFED]] for row in start]
    numbers = [kinds.count(NUMBER) for kinds in sample]
    words = sample[0].count(TEXT)
    header = words > 0 and (numbers[0] == 0 or (len(start) > 1 and numbers[0] < numbers[1]))
    names = tuple(str(cell or "").strip() for cell in start[0]) if header else None
    rest = itertools.chain(start[header:], rows)
    blocks, kinds, texts, done = [], [], {}, 0  # type: ignore[var-annotated]
    width = len(names or start[0])
    while chunk := list(itertools.islice(rest, max(1, _CHUNK // max(1, width)))):
        width = max(width, *(len(row) for row in chunk))
        if (done + len(chunk)) * width > _MOST_VALUES:
            raise InputError(
                asked, f"it has more than {_MOST_VALUES:,} cells",
                "keep the columns that the fit needs, as .parquet or .npz",
            )
        block, kind, found = _numbers(chunk, width, decimal_comma)
        for column, cells in found.items():
            texts.setdefault(column, {}).update({done + row: text for row, text in cells.items()})
        blocks.append(block)
        kinds.append(kind)
        done += len(chunk)
    if names is not None and width > len(names):
        names += tuple(f"column {k}" for k in range(len(names), width))
    if not blocks:
        return Grid(names, np.empty((0, width)), np.empty((0, width), np.uint8))
    return Grid(
        names,
        np.concatenate([_widen(block, width, np.nan) for block in blocks]),
        np.concatenate([_widen(kind, width, EMPTY) for kind in kinds]),
        texts,
        2 if header else 1,
    )


def _widen(block: Any, width: int, fill: float) -> Any:
    missing = width - block.shape[1]
    if missing == 0:
        return block
    return np.pad(block, ((0, 0), (0, missing)), constant_values=fill)


def _numbers(
    chunk: list[Sequence[Any]], width: int, decimal_comma: bool
) -> tuple[NDArray[np.float64], NDArray[np.uint8], dict[int, dict[int, str]]]:
    shape = (len(chunk), width)
    if all(len(row) == width for row in chunk):
        try:  # nearly all files: map(float) takes 60 ns a cell, telling kinds apart 300 ns
            flat = np.fromiter(map(float, itertools.chain.from_iterable(chunk)), float)
            return flat.reshape(shape), np.zeros(shape, np.uint8), {}
        except (TypeError, ValueError):
            pass
    values, kinds = np.full(shape, np.nan), np.full(shape, EMPTY, np.uint8)
    texts: dict[int, dict[int, str]] = {}
    for i, row in enumerate(chunk):
        for j, cell in enumerate(row):
            values[i, j], kinds[i, j] = _number(cell, decimal_comma)
            if kinds[i, j] == TEXT:
                texts.setdefault(j, {})[i] = str(cell).strip()
    return values, kinds, texts


def _number(cell: Any, decimal_comma: bool = False) -> tuple[float, int]:
    if cell is None:
        return np.nan, EMPTY
    if isinstance(cell, bool):
        return float(cell), NUMBER
    try:
        return float(cell), NUMBER
    except (TypeError, ValueError):
        text = str(cell).strip()
    if not text:
        return np.nan, EMPTY
    if decimal_comma and text.count(",") == 1:
        try:
            return float(text.replace(",", ".")), NUMBER
        except ValueError:
            pass
    return np.nan, TEXT


def _choose(sheet: str | None, there: Sequence[str], what: str, path: Path) -> str:
    """Return the sheet asked for, or the only one."""
    if sheet is None:
        if len(there) == 1:
            return there[0]
        raise UsageError(
            f"read measurements from {path}",
            f"it has {len(there)} {what}s: {', '.join(there[:20])}",
            f"choose one with --sheet '{there[0] if there else ''}'",
        )
    if sheet not in there:
        guess = nearest(sheet, there)
        hint = f"did you mean '{guess}'? " if guess else ""
        raise UsageError(
            f"read {what} '{sheet}' of {path}",
            f"there is no such {what}",
            f"{hint}choose one of {', '.join(there[:20])}",
        )
    return sheet


def _read_xlsx(path: Path, sheet: str | None, asked: str) -> Grid:
    openpyxl = _need("openpyxl", asked)
    with zipfile.ZipFile(path) as archive:
        size = sum(item.file_size for item in archive.infolist())
    if size > MOST_BYTES:
        raise _too_large(asked, size)
    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    try:
        name = _choose(sheet, book.sheetnames, "sheet", path)
        rows = (row for row in book[name].iter_rows(values_only=True) if any(_filled(row)))
        return _from_rows(rows, f"{asked}, sheet '{name}'")
    finally:
        book.close()


def _filled(row: Sequence[Any]) -> Iterator[bool]:
    return (cell is not None and cell != "" for cell in row)


def _from_columns(names: Sequence[str] | None, columns: Sequence[Any], asked: str) -> Grid:
    """Return the grid of arrays of one length, one a column."""
    n = len(columns[0]) if columns else 0
    if n * len(columns) > _MOST_VALUES:
        raise InputError(
            asked, f"it has {n:,} x {len(columns)} values, more than {_MOST_VALUES:,}",
            "keep the columns that the fit needs",
        )
    values = np.empty((n, len(columns)))
    kinds = np.zeros(values.shape, np.uint8)
    texts: dict[int, dict[int, str]] = {}
    for j, column in enumerate(columns):
        array = np.asarray(column)
        if array.dtype.kind in "fiub":
            values[:, j] = array
            continue
        cells = [cell.decode("utf-8", "replace") if isinstance(cell, bytes) else cell
                 for cell in array.tolist()]
        block, kind, found = _numbers([[cell] for cell in cells], 1, False)
        values[:, j], kinds[:, j] = block[:, 0], kind[:, 0]
        if found:
            texts[j] = found[0]
    return Grid(None if names is None else tuple(names), values, kinds, texts)


def _read_parquet(path: Path, asked: str) -> Grid:
    parquet = _need("pyarrow.parquet", asked)
    file = parquet.ParquetFile(path)
    about = file.metadata
    if about.num_rows * about.num_columns > _MOST_VALUES:
        raise InputError(
            asked, f"it has {about.num_rows:,} x {about.num_columns} values, more than "
            f"{_MOST_VALUES:,}", "keep the columns that the fit needs",
        )
    table = file.read()
    columns = [table.column(name).to_numpy() for name in table.column_names]
    return _from_columns(table.column_names, columns, asked)


def _read_npz(path: Path, asked: str) -> Grid:
    with zipfile.ZipFile(path) as archive:
        size = sum(item.file_size for item in archive.infolist())
    if size > 8 * _MOST_VALUES:
        raise _too_large(asked, size)
    with np.load(path, allow_pickle=False) as file:
        return _from_arrays({name: file[name] for name in file.files}, asked)


def _from_arrays(arrays: dict[str, NDArray[Any]], asked: str) -> Grid:
    """Return the grid of named arrays: columns of one length, or one table of two axes."""
    arrays = {name: array for name, array in arrays.items() if array.ndim in (1, 2)}
    if len(arrays) == 1:
        array = next(iter(arrays.values()))
        if array.dtype.names:
            return _from_columns(
                array.dtype.names, [array[name] for name in array.dtype.names], asked
            )
        if array.ndim == 2:
            return _from_columns(None, list(array.T), asked)
    names: list[str] = []
    columns: list[NDArray[Any]] = []
    for name, array in arrays.items():
        own = [array] if array.ndim == 1 else list(array.T)
        columns += own
        names += [name] if array.ndim == 1 else [f"{name}_{k}" for k in range(len(own))]
    lengths = {name: len(column) for name, column in zip(names, columns, strict=True)}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {n}" for name, n in list(lengths.items())[:10])
        raise InputError(
            asked, f"its arrays differ in length ({found})", "save columns of one length"
        )
    return _from_columns(names, columns, asked)


def _read_hdf5(path: Path, sheet: str | None, asked: str) -> Grid:
    h5py = _need("h5py", asked)
    with h5py.File(path, "r") as file:
        groups: dict[str, dict[str, Any]] = {}

        def visit(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and item.ndim in (1, 2):
                group, _, leaf = name.rpartition("/")
                groups.setdefault(group or "/", {})[leaf] = item
                if item.ndim == 2 or item.dtype.names:
                    groups[name] = {leaf: item}

        file.visititems(visit)
        if not groups:
            raise InputError(asked, "it has no tables", "give datasets of one or two axes")
        if sheet is None and "/" in groups:
            sheet = "/"
        name = _choose(None if sheet is None else sheet.strip("/") or "/",
                       list(groups), "group", path)
        size = sum(item.size for item in groups[name].values())
        if size > _MOST_VALUES:
            raise InputError(
                asked, f"'{name}' has {size:,} values, more than {_MOST_VALUES:,}",
                "keep the datasets that the fit needs in a group, and choose it with --sheet",
            )
        return _from_arrays({leaf: item[()] for leaf, item in groups[name].items()}, asked)
