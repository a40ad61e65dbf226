"""A file of a run is there whole or not at all, and whatever a file system refuses is told in one line."""

from __future__ import annotations

import os
import pickle
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typing_extensions import TypedDict

from raynas.errors import UserError
from raynas.storage import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "run"))


def everything(folder: Folder) -> list[str]:
    """Every file in it, hidden ones too."""
    place = Path(folder.location)
    return sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())


def test_what_is_written_is_read_back_and_nothing_else_is_left(folder: Folder) -> None:
    table = pa.table({"a": [1, 2], "b": ["x", None]})
    folder.write("deep/down/raw", b"bytes")
    folder.write_json("value.json", {"b": [1.5, None], "a": "x"})
    folder.write_table("table.parquet", table)
    folder.write("settings.toml", b"seed = 1\n")
    assert folder.read("deep/down/raw") == b"bytes" == (folder / "deep").read("down/raw")
    assert folder.read_json("value.json") == {"a": "x", "b": [1.5, None]}
    assert folder.read_table("table.parquet") == table
    assert folder.read_toml("settings.toml") == {"seed": 1}
    assert everything(folder) == ["deep/down/raw", "settings.toml", "table.parquet", "value.json"]


def test_equal_values_are_equal_bytes(folder: Folder) -> None:
    folder.write_json("one.json", {"a": 1, "b": 2})
    folder.write_json("two.json", {"b": 2, "a": 1})
    assert folder.read("one.json") == folder.read("two.json")
    for name in ("one.parquet", "two.parquet"):
        folder.write_table(name, pa.table({"a": [1.0, 2.0]}))
    assert folder.read("one.parquet") == folder.read("two.parquet")


def test_a_write_that_breaks_off_leaves_the_old_file_and_no_half_one(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write("file", b"old")
    opened = folder.filesystem.open_output_stream

    class FullDisk:
        filesystem = folder.filesystem

        def __getattr__(self, name: str) -> Any:
            return getattr(self.filesystem, name)

        def open_output_stream(self, path: str) -> Any:
            with opened(path) as stream:
                stream.write(b"n")
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder, "filesystem", FullDisk())
    with pytest.raises(UserError, match=r"cannot write .*file: No space left on device; free space"):
        folder.write("file", b"new")
    with pytest.raises(UserError, match="No space left"):
        folder.check_writable()
    assert everything(folder) == ["file"] and (Path(folder.location) / "file").read_bytes() == b"old"


def test_a_place_that_cannot_be_written_is_told_and_left(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        for write in (Folder(str(place)).check_writable, lambda place=place: Folder(str(place)).write("x", b"")):
            with pytest.raises(UserError, match=r"cannot write .*file"):
                write()
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "new" / "run"):
        Folder(str(place)).check_writable()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("x.json", b"{", "not valid JSON"),
        ("x.json", b"\xff", "not valid JSON"),
        ("x.parquet", b"PAR1", "not a whole Parquet file"),
        ("x.parquet", b"", "not a whole Parquet file"),
        ("x.toml", b"a = ", "not valid TOML"),
        ("x.json", None, "it is not there"),
        ("x.parquet", None, "it is not there"),
    ],
)
def test_a_broken_file_is_told_with_its_path_and_the_mend(
    name: str, content: bytes | None, told: str, folder: Folder
) -> None:
    if content is not None:
        folder.write(name, content)
    read = {"json": folder.read_json, "parquet": folder.read_table, "toml": folder.read_toml}[name.partition(".")[2]]
    with pytest.raises(UserError) as mistake:
        read(name)
    said = str(mistake.value)
    assert told in said and folder.path(name) in said and "; " in said and "\n" not in said


def test_half_a_table_is_told(folder: Folder) -> None:
    folder.write_table("t.parquet", pa.table({"a": list(range(1000))}))
    whole = folder.read("t.parquet")
    for length in (len(whole) // 2, len(whole) - 1):
        folder.write("t.parquet", whole[:length])
        with pytest.raises(UserError, match=r"t\.parquet is not a whole Parquet file.*delete it"):
            folder.read_table("t.parquet")


class Both(TypedDict):
    a: int
    b: int


def test_what_a_file_must_hold_is_named_where_it_lacks_it(folder: Folder) -> None:
    folder.write_table("t.parquet", pa.table({"a": [1], "b": [2]}))
    assert folder.read_table("t.parquet", ("b", "a")).column_names == ["a", "b"]
    with pytest.raises(UserError, match="without the columns c, d;"):
        folder.read_table("t.parquet", ("a", "c", "d"))
    folder.write_json("x.json", {"a": 1})
    assert folder.read_json("x.json", dict[str, int]) == {"a": 1}
    with pytest.raises(UserError, match="without b;"):
        folder.read_json("x.json", Both)
    folder.write_json("x.json", [1])
    assert folder.read_json("x.json") == [1]
    with pytest.raises(UserError, match=r"expected a JSON object, but got \[1\]"):
        folder.read_json("x.json", dict[str, int])


def test_names_are_sorted_and_hide_what_is_being_written(folder: Folder) -> None:
    for name in ("b", "a", ".a.temporary", "deep/c"):
        folder.write(name, b"")
    assert folder.names() == ["a", "b", "deep"] and folder.names("deep") == ["c"]
    assert folder.names("nothing") == [] and not folder.exists("nothing") and folder.exists("deep")
    with pytest.raises(UserError, match="cannot list"):
        folder.names("a")


def test_only_what_killed_writers_left_long_ago_is_swept_away(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(place: str, content: bytes) -> None:
        Path(place).write_bytes(content)
        raise KeyboardInterrupt

    folder.write("deep/weights", b"old")
    folder.write(".mine.txt", b"")
    monkeypatch.setattr(folder, "_put", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            folder.write("deep/weights", b"new")
    abandoned, at_work = (path for path in (Path(folder.location) / "deep").iterdir() if path.name != "weights")
    os.utime(abandoned, times=(time.time() - 25 * 3600,) * 2)
    folder.sweep()
    kept = [".mine.txt", f"deep/{at_work.name}", "deep/weights"]
    assert everything(folder) == kept and folder.read("deep/weights") == b"old"
    (folder / "nothing").sweep()


@pytest.mark.parametrize("location", ["ftp://host/runs", "nonsense://x", "~no-such-user-here/runs", "s3://", "gs://"])
def test_a_storage_that_there_is_not_is_told(location: str) -> None:
    with pytest.raises(UserError, match="expected a folder, s3://"):
        Folder(location)


def test_a_folder_is_found_again_in_another_process_and_from_another_folder(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write("x", b"1")
    monkeypatch.chdir(tmp_path)
    relative = Folder("run")
    assert relative.location == folder.location
    monkeypatch.chdir("/")
    assert pickle.loads(pickle.dumps(relative)).read("x") == b"1"  # noqa: S301 (its own bytes)
    assert (Folder("/") / "x").location == "/x"


def test_a_uri_of_a_local_folder_is_that_folder(folder: Folder) -> None:
    folder.write_table("t.parquet", pa.table({"a": [1]}))
    assert (Folder(f"file://{Path(folder.location).parent}") / "run").read_table("t.parquet").to_pydict() == {"a": [1]}
    assert pq.read_table(folder.path("t.parquet")).to_pydict() == {"a": [1]}
