"""From image files and arrays of any kind to uint8 tensors (N, C, H, W)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from raynas.data import as_tensor
from raynas.errors import UserError

Chunks: TypeAlias = list[Tensor]
"""Images in order, as uint8 tensors (n, C, H, W); sizes and channels may still differ between chunks."""

Raw: TypeAlias = tuple[Chunks, NDArray[Any], Chunks, NDArray[Any]]
"""What a dataset's `read` gives: train images, train labels, test images, test labels."""

CHUNK = 128
"""Files that a thread decodes, and resizes, before it takes the next ones: bounds the memory of large images."""


def decode(files: Sequence[bytes | Path | None], names: Sequence[str], resolution: int | None) -> Chunks:
    """Decode image files, in as many threads as torch may use: grey files as one channel, all others as three.

    Raises UserError that gives the name of the first file that holds no image.
    """
    starts = range(0, len(files), CHUNK)
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        jobs = [
            threads.submit(_decode_chunk, files[start : start + CHUNK], names[start : start + CHUNK], resolution)
            for start in starts
        ]
        try:
            return [chunk for job in jobs for chunk in job.result()]
        except UserError:
            threads.shutdown(cancel_futures=True)
            raise


def from_arrays(images: Any, what: str, resolution: int | None, first_row: int = 0) -> Chunks:
    """Images as integers 0..255, in one array or in a list of arrays that may differ in size.

    Shapes are (N, H, W), (N, H, W, C) or (N, C, H, W); C is 1 or 3, and comes last where both would fit.
    Raises UserError for anything else, with the row where images differ in size, counted from `first_row`.
    """
    if isinstance(images, list | tuple):
        try:
            arrays = [np.asarray(image) for image in images]
        except ValueError as fault:
            raise UserError(f"{what}: expected each image as an array, but {fault}.") from None
        if len({array.shape for array in arrays}) > 1:
            return [
                chunk
                for row, array in enumerate(arrays, first_row)
                for chunk in from_arrays(array[None], f"{what} row {row}", resolution)
            ]
        images = np.stack(arrays) if arrays else np.empty((0, 1, 1), np.uint8)
    array = np.asarray(images)
    if array.dtype != np.uint8:
        if not np.issubdtype(array.dtype, np.integer):
            raise UserError(f"{what}: expected images as integers 0..255 (uint8), but got {array.dtype}; convert them.")
        if array.size and (array.min() < 0 or array.max() > 255):
            raise UserError(f"{what}: expected pixels in 0..255, but got {array.min()}..{array.max()}; rescale them.")
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[-1] in (1, 3):
        array = np.moveaxis(array, -1, 1)
    elif array.ndim != 4 or array.shape[1] not in (1, 3):
        raise UserError(
            f"{what}: expected images of shape (N, H, W), (N, H, W, C) or (N, C, H, W) with C of 1 or 3, but got "
            f"{array.shape}; reshape them, or make a raynas Dataset for other channels."
        )
    return [resize(as_tensor(np.ascontiguousarray(array, np.uint8)), resolution)]


def resize(images_NCHW: Tensor, resolution: int | None) -> Tensor:
    """Stretch images to (resolution, resolution), bilinear with antialiasing; None leaves them as they are."""
    if resolution is None or tuple(images_NCHW.shape[2:]) == (resolution, resolution) or not images_NCHW.numel():
        return images_NCHW
    from torchvision.transforms.v2 import functional  # here, as it takes a second: only who resizes should wait

    side = [resolution, resolution]
    # in pieces: where the processor has no integer path, each one goes through float32
    return torch.cat([functional.resize(piece, side, antialias=True) for piece in torch.split(images_NCHW, 1024)])


def join(train: Chunks, test: Chunks, what: str) -> tuple[Tensor, Tensor]:
    """Make one tensor of each part's chunks, with as many channels as any of them has.

    Raises UserError if a part is empty or sizes differ.
    """
    for part, chunks in (("training", train), ("test", test)):
        if not sum(chunk.numel() for chunk in chunks):
            raise UserError(f"{what} holds no {part} images; expected at least one of each class.")
    sizes = sorted({tuple(chunk.shape[2:]) for chunk in train + test})
    if len(sizes) > 1:
        few = ", ".join(f"{height}x{width}" for height, width in sizes[:3])
        raise UserError(f"{what}: images have {len(sizes)} different sizes ({few} ...); set data.resolution.")
    channels = max(chunk.shape[1] for chunk in train + test)
    parts = ([chunk.expand(-1, channels, -1, -1) for chunk in chunks] for chunks in (train, test))
    return tuple(chunks[0].contiguous() if len(chunks) == 1 else torch.cat(chunks) for chunks in parts)  # type: ignore[return-value]


def _decode_chunk(files: Sequence[bytes | Path | None], names: Sequence[str], resolution: int | None) -> Chunks:
    return from_arrays([_decode(*one) for one in zip(files, names, strict=True)], names[0], resolution)


def _decode(file: bytes | Path | None, name: str) -> NDArray[np.uint8]:
    """One image as (H, W) where the file is grey, otherwise (H, W, 3); transparency is dropped."""
    if not file:
        raise UserError(f"{name} holds no image bytes; remove it, or store the image itself.")
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
            if image.mode.startswith("I;16"):
                return (np.asarray(image) >> 8).astype(np.uint8)
            if image.mode in ("I", "F"):
                raise ValueError(f"pixels of mode {image.mode}, not of 8 or 16 bits")
            return np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    except UnidentifiedImageError:
        raise UserError(f"{name} is no readable image (no format that Pillow knows); mend or remove it.") from None
    except Exception as fault:  # a decoder raises whatever the broken bytes lead it to
        reason = f"{type(fault).__name__}: {fault}".splitlines()[0]
        raise UserError(f"{name} is no readable image ({reason}); mend or remove it.") from None
