"""Batched augmentation: crop, flip and cutout of all images of a batch at once; no Python per image.

The draws are made for a whole (joined) batch as arrays. A replica that takes rows of the batch takes the same rows of
the draws, and its images come out as they would in one process.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from raynas.config import DataSettings
from raynas.data import Split


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What happens to each of N images; `augmentation[rows]` is what happens to some of them."""

    draws_N5: NDArray[np.int64]
    """Per image: top and left of the crop in the padded image, flipped or not, row and column of the erased centre."""
    crop_padding: int
    cutout: int

    def __len__(self) -> int:
        return len(self.draws_N5)

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> Augmentation:
        return Augmentation(self.draws_N5[rows], self.crop_padding, self.cutout)


class Augmenter:
    """Turns batches of a split's images into what a network takes, by a run's settings."""

    def __init__(self, split: Split, settings: DataSettings, device: torch.device) -> None:
        self.settings = settings
        self.side = split.dataset.image_shape_CHW[1:]
        mean_C, std_C = split.mean_std_C
        self.mean_C, self.std_C = mean_C.to(device), std_C.to(device)

    def draw(self, rng: np.random.Generator, count: int) -> Augmentation:
        """What happens to each of the `count` images of a joined batch."""
        crop_padding, flip, cutout = self.settings.crop_padding, self.settings.flip, self.settings.cutout
        return draw_augmentation(rng, count, self.side, crop_padding=crop_padding, flip=flip, cutout=cutout)

    def __call__(self, images_NCHW: Tensor, augmentation: Augmentation | None = None) -> Tensor:
        """Augment, or with None only normalise: uint8 (N, C, H, W) -> float32 (N, C, H, W) with channels last.

        The images must lie on the augmenter's device.
        """
        if augmentation is None:
            return normalise(images_NCHW, self.mean_C, self.std_C, channels_last=True)
        return augment(images_NCHW, augmentation, self.mean_C, self.std_C, channels_last=True)


def draw_augmentation(
    rng: np.random.Generator,
    count: int,
    side: tuple[int, int],
    *,
    crop_padding: int = 0,
    flip: bool = False,
    cutout: int = 0,
) -> Augmentation:
    """Draw for `count` images of `side` (height, width) in pixels.

    `crop_padding`: black pixels around the image, of which a random window of its own size is cut; `flip`: left to
    right, every other image; `cutout`: side of the erased square, whose centre is anywhere in the image, so that it may
    reach over the border (DeVries and Taylor, 2017, arXiv:1708.04552).
    """
    shifts = 2 * crop_padding + 1
    return Augmentation(rng.integers([shifts, shifts, 1 + flip, *side], size=(count, 5)), crop_padding, cutout)


def augment(
    images_NCHW: Tensor, augmentation: Augmentation, mean_C: Tensor, std_C: Tensor, *, channels_last: bool = False
) -> Tensor:
    """Crop, flip, normalise and erase: uint8 (N, C, H, W) -> float32 (N, C, H, W), on the images' device.

    What is erased becomes 0, the mean. The images stay as they are. Raises ValueError if draws are too few or many.
    """
    count, channels, height, width = images_NCHW.shape
    if len(augmentation) != count:
        raise ValueError(f"expected draws for {count} images, but got {len(augmentation)}; take the same rows of both.")
    device, padding = images_NCHW.device, augmentation.crop_padding
    top_N, left_N, flip_N, row_N, column_N = torch.from_numpy(augmentation.draws_N5.T.copy()).to(device)
    y_H, x_W = torch.arange(height, device=device), torch.arange(width, device=device)
    x_NW = torch.where(flip_N[:, None] > 0, width - 1 - x_W, x_W) + left_N[:, None]
    y_NH = y_H + top_N[:, None]
    source_N1P = (y_NH[:, :, None] * (width + 2 * padding) + x_NW[:, None, :]).view(count, 1, height * width)
    padded_NCP = functional.pad(images_NCHW, [padding] * 4).reshape(count, channels, -1)
    cropped_NCHW = padded_NCP.gather(2, source_N1P.expand(-1, channels, -1)).view(images_NCHW.shape)
    values_NCHW = _standardised(cropped_NCHW, mean_C, std_C)
    if augmentation.cutout:
        outside_NH = _outside(y_H, row_N, augmentation.cutout)
        outside_NW = _outside(x_W, column_N, augmentation.cutout)
        values_NCHW.mul_((outside_NH[:, :, None] | outside_NW[:, None, :])[:, None].float())
    return values_NCHW.contiguous(memory_format=torch.channels_last) if channels_last else values_NCHW


def normalise(images_NCHW: Tensor, mean_C: Tensor, std_C: Tensor, *, channels_last: bool = False) -> Tensor:
    """(x - mean) / std per channel, mean and std in grey levels 0..255: uint8 (N, C, H, W) -> float32 (N, C, H, W)."""
    values_NCHW = _standardised(images_NCHW, mean_C, std_C)
    return values_NCHW.contiguous(memory_format=torch.channels_last) if channels_last else values_NCHW


def _standardised(images_NCHW: Tensor, mean_C: Tensor, std_C: Tensor) -> Tensor:
    mean_C11, std_C11 = (value.to(images_NCHW.device)[:, None, None] for value in (mean_C, std_C))
    return images_NCHW.to(torch.float32, copy=True).sub_(mean_C11).div_(std_C11)


def _outside(places: Tensor, centre_N: Tensor, length: int) -> Tensor:
    """Which places are not among the `length` around each centre: (P,), (N,) -> (N, P)."""
    offset_NP = places - centre_N[:, None] + length // 2
    return (offset_NP < 0) | (offset_NP >= length)
