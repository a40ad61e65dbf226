"""parquet:DIR, rows of DIR/train*.parquet and DIR/test*.parquet: an image (file bytes or array) and a label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raynas.datasets import existing
from raynas.errors import UserError
from raynas.images import Chunks, Raw, decode, from_arrays

IMAGES = ("image", "img", "images")
LABELS = ("label", "labels", "fine_label")
BATCH = 4096


def read(directory: str | None, resolution: int | None) -> Raw:
    """Both parts; raises UserError for missing or broken files, other columns, and rows that hold no image."""
    folder = existing("parquet", directory)
    return (*_part(folder, "train", resolution), *_part(folder, "test", resolution))


def _part(folder: Path, part: str, resolution: int | None) -> tuple[Chunks, NDArray[Any]]:
    files = sorted(folder.glob(f"{part}*.parquet"))
    if not files:
        there = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
        raise UserError(f"expected {part}*.parquet in {folder}, but it holds {there}; rename the files, or check DIR.")
    parts = [_file(file, resolution) for file in files]
    return [chunk for chunks, _ in parts for chunk in chunks], np.concatenate([labels_N for _, labels_N in parts])


def _file(file: Path, resolution: int | None) -> tuple[Chunks, NDArray[Any]]:
    try:
        with pq.ParquetFile(file) as source:
            schema = source.schema_arrow
            image, label = _column(file, schema.names, IMAGES), _column(file, schema.names, LABELS)
            # in batches: the offsets of one list array end at 2**31 pixels
            batches = source.iter_batches(BATCH, columns=[image, label])
            table = pa.Table.from_batches(batches, pa.schema([schema.field(image), schema.field(label)]))
    except (pa.ArrowException, OSError) as fault:
        reason = f"{type(fault).__name__}: {fault}".splitlines()[0]
        raise UserError(f"{file} is not a whole Parquet file ({reason}); copy it or make it anew.") from None
    labels = table[label]
    if not pa.types.is_integer(labels.type) or labels.null_count:
        came = f"{labels.null_count} empty rows" if labels.null_count else str(labels.type)
        raise UserError(f"{file}: expected integers in the column {label!r}, but got {came}; number the classes.")
    return _images(file, image, table[image], resolution), labels.to_numpy()


def _column(file: Path, names: list[str], wanted: tuple[str, ...]) -> str:
    for name in wanted:
        if name in names:
            return name
    raise UserError(f"{file}: expected a column {' or '.join(wanted)}, but it has {', '.join(names)}; rename one.")


def _images(file: Path, name: str, column: Any, resolution: int | None) -> Chunks:
    kind = column.type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        column = pc.struct_field(column, "bytes")
        kind = column.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return decode(column.to_pylist(), [f"{file} row {row}" for row in range(len(column))], resolution)
    if _is_list(kind) or isinstance(kind, pa.FixedShapeTensorType):
        chunks: Chunks = []
        row, what = 0, f"{file} column {name!r}"
        for part in column.chunks:
            chunks += from_arrays(_arrays(what, part), what, resolution, first_row=row)
            row += len(part)
        return chunks
    raise UserError(
        f"{file}: expected the column {name!r} to hold image files (binary, or a struct with bytes) or arrays "
        f"(H, W) or (H, W, C) as lists, but it is {kind}; convert it."
    )


def _arrays(what: str, values: Any) -> NDArray[Any] | list[Any]:
    """Rows of nested lists as one array (N, H, W[, C]) without a Python object per pixel; ragged ones row by row."""
    if isinstance(values.type, pa.FixedShapeTensorType):
        return values.to_numpy_ndarray()  # type: ignore[no-any-return]
    shape, level = [len(values)], values
    while _is_list(level.type):
        lengths = pc.unique(pc.list_value_length(level)).to_pylist()
        if len(lengths) > 1:
            return values.to_pylist()  # type: ignore[no-any-return]
        shape.append(lengths[0] if lengths else 0)
        level = level.flatten()
    if level.null_count:
        raise UserError(f"{what}: expected whole images, but {level.null_count} pixels are empty; mend those rows.")
    return level.to_numpy(zero_copy_only=False).reshape(shape)  # type: ignore[no-any-return]


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
