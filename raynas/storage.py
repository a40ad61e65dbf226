"""A run's folder on any file system of pyarrow: whole files in, whole files out."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import posixpath
import re
import reprlib
import time
import tomllib
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs
from pydantic import TypeAdapter, ValidationError

from raynas.errors import UserError, reason

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}")
ABANDONED_S = 24 * 3600.0
"""Age at which a temporary file's writer must have been killed, even where clocks differ."""

MEND_WRITING = "free space there, or name a folder that can be written"


class Folder:
    """A folder, local or `s3://`, `gs://` ...; a file in it is there whole or not at all.

    Whatever the file system refuses is raised as UserError.
    """

    def __init__(self, location: str) -> None:
        expected = "expected a folder, s3://BUCKET/FOLDER or gs://BUCKET/FOLDER."
        if not location.strip():  # as of a shell's variable that is not set; `.` is where one stands
            raise UserError(f"cannot use an empty name: {expected}")
        try:
            self.location = location if "://" in location else str(Path(location).expanduser().resolve())
            self.filesystem, self.root = fs.FileSystem.from_uri(self.location)
        except (OSError, RuntimeError, pa.ArrowException) as fault:  # RuntimeError: a ~user that does not exist
            raise UserError(f"cannot use {location}: {reason(fault)}; {expected}") from None
        if "://" in location and not self.root.strip("/"):
            raise UserError(f"cannot use {location}: it names no bucket and no folder; {expected}")

    def __reduce__(self) -> tuple[type[Folder], tuple[str]]:
        return Folder, (self.location,)

    def __truediv__(self, name: str) -> Folder:
        """The folder `name` in this one."""
        return Folder(self.path(name))

    def path(self, name: str) -> str:
        """The full path of a file, to show to the user."""
        remote = "://" in self.location  # s3://bucket/runs?region=...: the options stay behind the path
        place, question, options = self.location.partition("?") if remote else (self.location, "", "")
        return f"{place.rstrip('/')}/{name}".rstrip("/") + question + options

    def exists(self, name: str) -> bool:
        """Whether the file or folder `name` is there."""
        with self._told("look at", name, "check its permissions"):
            info = self.filesystem.get_file_info([posixpath.join(self.root, name)])[0]
        return bool(info.type != fs.FileType.NotFound)

    def names(self, name: str = "") -> list[str]:
        """The names of the files and folders in the folder `name`, sorted; none if it is not there."""
        selector = fs.FileSelector(posixpath.join(self.root, name), allow_not_found=True)
        with self._told("list", name, "name a folder that can be read"):
            found = self.filesystem.get_file_info(selector)
        return sorted(info.base_name for info in found if not info.base_name.startswith("."))

    def write(self, name: str, content: bytes) -> None:
        """Write a file under a temporary name and rename it."""
        target = posixpath.join(self.root, name)
        head, tail = posixpath.split(target)
        temporary = posixpath.join(head, f".{tail}.{uuid.uuid4().hex}")  # two pods may have equal process ids
        with self._told("write", name, MEND_WRITING):
            self.filesystem.create_dir(head, recursive=True)
            self._put(temporary, content)
            self.filesystem.move(temporary, target)

    def sweep(self) -> None:
        """Delete the temporary files that killed writers left behind, here and below."""
        selector = fs.FileSelector(self.root, allow_not_found=True, recursive=True)
        with self._told("sweep", "", MEND_WRITING):
            for info in self.filesystem.get_file_info(selector):
                if TEMPORARY.fullmatch(info.base_name) and time.time() - info.mtime_ns / 1e9 > ABANDONED_S:
                    with contextlib.suppress(OSError, pa.ArrowException):  # gone by now, or another's: it does no harm
                        self.filesystem.delete_file(info.path)

    def check_writable(self) -> None:
        """Raise UserError unless a small file can be written here, and deleted; leaves no folder that it made."""
        probe = posixpath.join(self.root, f".writable.{os.getpid()}")
        local = isinstance(self.filesystem, fs.LocalFileSystem)  # an object store has no folders
        with self._told("write into", "", MEND_WRITING):
            made = [place for place in (Path(self.root), *Path(self.root).parents) if local and not place.exists()]
            try:
                self.filesystem.create_dir(self.root, recursive=True)
                self._put(probe, b"raynas" * 1000)
                self.filesystem.delete_file(probe)
            finally:
                for place in made:
                    with contextlib.suppress(OSError):  # another process has put something there by now
                        place.rmdir()

    def read(self, name: str) -> bytes:
        """Read a whole file."""
        with (
            self._told("read", name, "check the folder's name, or run the same `raynas search` to its end"),
            self.filesystem.open_input_stream(posixpath.join(self.root, name)) as stream,
        ):
            return bytes(stream.read())

    def read_header(self, name: str) -> tuple[bytes, int]:
        """What a safetensors file says of itself, JSON behind eight bytes that say how long it is; and the file's size.

        Nothing else of the file is read.
        """
        with (
            self._told("read", name, "check the folder's name, or run the same `raynas search` to its end"),
            self.filesystem.open_input_file(posixpath.join(self.root, name)) as file,
        ):
            first, size = bytes(file.read(8)), file.size()
            return first + bytes(file.read(min(size, int.from_bytes(first, "little")))), size

    def write_json(self, name: str, value: Any) -> None:
        """Write JSON with sorted keys, so that equal values are equal bytes."""
        self.write(name, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())

    def read_json(self, name: str, shape: Any = None) -> Any:
        """Read JSON; raises UserError if the file is not JSON, or not of the shape (a type), if one is given.

        What the shape does not name is left as it is.
        """
        try:
            value = json.loads(self.read(name))
        except ValueError as fault:
            raise self.broken(name, f"not valid JSON ({fault})") from None
        if shape is not None:
            try:
                _adapter(shape).validate_python(value, strict=True)
            except ValidationError as faults:
                raise self.broken(name, _unlike(faults)) from None
        return value

    def read_toml(self, name: str) -> dict[str, Any]:
        """Read TOML; raises UserError if the file is not TOML."""
        try:
            return tomllib.loads(self.read(name).decode())
        except ValueError as fault:
            raise UserError(f"{self.path(name)} is not valid TOML ({fault}); restore it.") from None

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write a Parquet file; equal tables are equal bytes."""
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        self.write(name, buffer.getvalue())

    def read_table(self, name: str, columns: Sequence[str] | pa.Schema = ()) -> pa.Table:
        """Read a Parquet file; raises UserError if it is truncated, no Parquet, or lacks one of these columns.

        Of a schema the columns must also be of its types, and filled where they may not be null; all others hold
        numbers then.
        """
        try:
            table = pq.read_table(io.BytesIO(self.read(name)))
        except (pa.ArrowException, OSError) as fault:
            raise self.broken(name, f"not a whole Parquet file ({reason(fault)})") from None
        names = columns.names if isinstance(columns, pa.Schema) else columns
        if missing := [column for column in names if column not in table.column_names]:
            raise self.broken(name, f"without the columns {', '.join(missing)}")
        if isinstance(columns, pa.Schema) and len(table):  # the columns of an empty table may have no type
            for column in table.column_names:
                wanted = columns.field(column) if column in names else None
                if wrong := _unfit(table.column(column), wanted):
                    raise self.broken(name, f"wrong in the column {column}: {wrong}")
        return table

    def broken(self, name: str, what: str) -> UserError:
        """The mistake to raise of a file that is not what it should be, e.g. `not valid JSON`."""
        return UserError(f"{self.path(name)} is {what}; delete it, and the same `raynas search` makes it anew.")

    def _put(self, path: str, content: bytes) -> None:
        try:
            with self.filesystem.open_output_stream(path) as stream:
                stream.write(content)
        except BaseException:
            with contextlib.suppress(OSError, pa.ArrowException):
                self.filesystem.delete_file(path)  # half a file would hold the space of a full disk
            raise

    @contextlib.contextmanager
    def _told(self, action: str, name: str, mend: str) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as fault:
            why = "it is not there" if isinstance(fault, FileNotFoundError) and action == "read" else reason(fault)
            raise UserError(f"cannot {action} {self.path(name)}: {why}; {mend}.") from None


@functools.cache
def _adapter(shape: Any) -> TypeAdapter[Any]:
    return TypeAdapter(shape)


def _unlike(faults: ValidationError) -> str:
    """How a record differs from its shape: all that is missing, or else the first that is wrong."""
    told = faults.errors()
    missing = [one["loc"] for one in told if one["type"] == "missing"]
    if missing:
        places = (".".join(part for part in place if isinstance(part, str)) for place in missing)
        return f"without {', '.join(dict.fromkeys(places))}"
    place = ".".join(map(str, told[0]["loc"]))
    said = told[0]["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    said = said.replace("a valid dictionary", "a JSON object")
    came = "" if told[0]["type"] == "value_error" else f", but got {reprlib.repr(told[0]['input'])}"
    return f"wrong{f' in {place}' if place else ''}: {said}{came}"


def _unfit(column: pa.ChunkedArray, wanted: pa.Field | None) -> str:
    """Why a column is none that is wanted, of numbers if nothing is known of it; nothing if it is."""
    kind = column.type
    if wanted is None or pa.types.is_floating(wanted.type):
        fits = pa.types.is_floating(kind) or pa.types.is_integer(kind) or (wanted is None and pa.types.is_boolean(kind))
        expected = "numbers"
    else:
        fits, expected = kind == wanted.type, str(wanted.type)
    if wanted is not None and not wanted.nullable:
        if pc.any(column.is_null(nan_is_null=True)).as_py():
            return f"expected {expected}, but got a row without one"
    elif pa.types.is_null(kind):
        return ""
    return "" if fits else f"expected {expected}, but got {kind}"
