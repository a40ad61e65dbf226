"""Images in memory: a dataset, its train/validation split, and the stream of training batches."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from raynas import seeds
from raynas.datasets import listing
from raynas.errors import UserError, closest
from raynas.members import load_module


@dataclass(frozen=True, eq=False)
class Dataset:
    """Decoded images, uint8 (N, C, H, W), with labels, int64 (N,), in 0..classes-1; raises UserError if they are not.

    The tensors may lie on read-only memory that other processes share: nothing may write into them.
    """

    train_images_NCHW: Tensor
    train_labels_N: Tensor
    test_images_NCHW: Tensor
    test_labels_N: Tensor
    classes: int
    name: str

    def __post_init__(self) -> None:
        for part in ("train", "test"):
            images, labels = getattr(self, f"{part}_images_NCHW"), getattr(self, f"{part}_labels_N")
            if images.dtype != torch.uint8 or images.ndim != 4 or not images.numel():
                came = f"{images.dtype} {tuple(images.shape)}"
                raise UserError(f"{self.name}: expected {part} images as uint8 (N, C, H, W), but got {came}.")
            if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
                came = f"{labels.dtype} {tuple(labels.shape)}"
                raise UserError(f"{self.name}: expected {len(images)} {part} labels as int64, but got {came}.")
        if self.train_images_NCHW.shape[1:] != self.test_images_NCHW.shape[1:]:
            train, test = (tuple(images.shape[1:]) for images in (self.train_images_NCHW, self.test_images_NCHW))
            raise UserError(
                f"{self.name}: training images are (C, H, W) = {train}, test images {test}; set data.resolution for "
                "equal sides, and convert them to equal channels."
            )
        if self.classes < 2:
            raise UserError(f"{self.name}: expected labels of at least two classes, but got {self.classes}; add one.")
        present = np.unique(self.train_labels_N.numpy())
        if not np.array_equal(present, np.arange(self.classes)):
            raise UserError(
                f"{self.name}: training labels must be 0..{self.classes - 1}, each at least once, but there are "
                f"{len(present)} different ones from {present[0]} to {present[-1]}; renumber them without gaps."
            )
        outside = np.flatnonzero((self.test_labels_N < 0) | (self.test_labels_N >= self.classes))
        if len(outside):
            raise UserError(
                f"{self.name}: test image {outside[0]} has the label {self.test_labels_N[outside[0]]}, but training "
                f"labels are 0..{self.classes - 1}; renumber it."
            )

    @property
    def image_shape_CHW(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        _, channels, height, width = self.train_images_NCHW.shape
        return channels, height, width

    @cached_property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that name the content: shapes, pixels and labels, wherever they came from."""
        digest = hashlib.sha256()
        for key, value in self.to_numpy().items():
            if isinstance(value, np.ndarray):
                digest.update(f"{key}{value.shape}".encode())
                digest.update(np.ascontiguousarray(value).data)
        return digest.hexdigest()[:12]

    def to_numpy(self) -> dict[str, Any]:
        """The fields by name with arrays in the tensors' place, on the same memory; to ship through an object store."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {key: value.numpy() if isinstance(value, Tensor) else value for key, value in values.items()}

    @classmethod
    def from_numpy(cls, values: Mapping[str, Any]) -> Dataset:
        """The dataset that `to_numpy` took apart, on the arrays' own memory, which may be read-only."""
        tensors = {key: as_tensor(value) for key, value in values.items() if isinstance(value, np.ndarray)}
        return cls(**{**values, **tensors})


@dataclass(frozen=True, eq=False)
class Split:
    """The training images in two disjoint parts, given by their rows; the test images have no place in it."""

    dataset: Dataset
    train_rows_N: NDArray[np.int64]
    validation_rows_N: NDArray[np.int64]

    @cached_property
    def train_images_NCHW(self) -> Tensor:
        """A copy of the train part's images, made when first asked for."""
        return self.dataset.train_images_NCHW.index_select(0, torch.from_numpy(self.train_rows_N))

    @cached_property
    def train_labels_N(self) -> Tensor:
        """The train part's labels."""
        return self.dataset.train_labels_N.index_select(0, torch.from_numpy(self.train_rows_N))

    @cached_property
    def validation_images_NCHW(self) -> Tensor:
        """A copy of the validation part's images, made when first asked for."""
        return self.dataset.train_images_NCHW.index_select(0, torch.from_numpy(self.validation_rows_N))

    @cached_property
    def validation_labels_N(self) -> Tensor:
        """The validation part's labels."""
        return self.dataset.train_labels_N.index_select(0, torch.from_numpy(self.validation_rows_N))

    @cached_property
    def mean_std_C(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the train part's pixels per channel, float32 (C,), in grey levels 0..255."""
        levels = torch.zeros(self.dataset.image_shape_CHW[0], 256, dtype=torch.int64)
        for rows_N in torch.split(torch.from_numpy(self.train_rows_N), 4096):
            images_NCHW = self.dataset.train_images_NCHW.index_select(0, rows_N)
            for channel, count in enumerate(levels):  # counted, so that the sums are exact in any order
                count += torch.bincount(images_NCHW[:, channel].flatten(), minlength=256)
        shares = levels.double() / levels.sum(1, keepdim=True)
        grey = torch.arange(256, dtype=torch.float64)
        mean_C = shares @ grey
        std_C = (shares @ grey.square() - mean_C.square()).clamp_min(0).sqrt()
        return mean_C.float(), torch.where(std_C > 0, std_C, 1.0).float()  # a constant channel becomes 0, not NaN


def as_tensor(array: NDArray[Any]) -> Tensor:
    """A tensor on an array's own memory, also where that is read-only (Ray's object store): never write into it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def load(name: str, *, resolution: int | None = None) -> Dataset:
    """Read and decode `digits`, `cifar10`, `cifar100`, `folder:DIR`, `parquet:DIR` or `package.module:function`.

    `resolution` stretches every image to that side in pixels, bilinear with antialiasing.
    A function takes no arguments and gives train images, train labels, test images, test labels: images as integers
    0..255 of shape (N, H, W), (N, H, W, C) or (N, C, H, W) with C of 1 or 3 (last where both would fit), labels
    0..K-1; or a Dataset, for any other channels. Raises UserError for an unknown name and for unusable data.
    """
    from raynas.datasets import _function  # here, as torchvision takes a second: only who decodes should wait
    from raynas.images import join, resize

    kind, colon, argument = name.partition(":")
    if kind in listing():
        reader = load_module(f"raynas.datasets.{kind}", "dataset", "raynas.datasets")
        raw = reader.read(argument if colon else None, resolution)
    elif argument:
        raw = _function.read(kind, argument, resolution)
    else:
        raise UserError(f"unknown dataset {name!r}; {closest(name, listing())}")
    if isinstance(raw, Dataset):
        train_NCHW, test_NCHW = (resize(images, resolution) for images in (raw.train_images_NCHW, raw.test_images_NCHW))
        return replace(raw, train_images_NCHW=train_NCHW, test_images_NCHW=test_NCHW, name=name)
    train, train_labels_N, test, test_labels_N = raw
    train_NCHW, test_NCHW = join(train, test, name)
    train_N, test_N = (_labels(labels_N, name) for labels_N in (train_labels_N, test_labels_N))
    classes = int(train_N.max()) + 1 if len(train_N) else 0
    return Dataset(train_NCHW, train_N, test_NCHW, test_N, classes, name)


def split(dataset: Dataset, validation_fraction: float, seed: int) -> Split:
    """Part the training images in train and validation, stratified: disjoint, together the whole, by the seed alone.

    Raises UserError if a part would be empty.
    """
    labels_N = dataset.train_labels_N
    train_N, validation_N = stratified(labels_N.numpy(), validation_fraction, seeds.generator(seed, "split"))
    if not len(train_N) or not len(validation_N):
        raise UserError(
            f"data.validation_fraction={validation_fraction} parts the {len(labels_N)} training images of "
            f"{dataset.name} in {len(train_N)} and {len(validation_N)}; choose one that leaves images in both parts."
        )
    return Split(dataset, train_N, validation_N)


def stratified(
    labels_N: NDArray[np.int64], fraction: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Two sorted sets of rows, the second with `fraction` of all and, within one image, of every class."""
    order_N = rng.permutation(len(labels_N))
    order_N = order_N[np.argsort(labels_N[order_N], kind="stable")]  # by class, at random within
    first_K, count_K = np.unique(labels_N[order_N], return_index=True, return_counts=True)[1:]
    share_K = fraction * count_K
    taken_K = np.floor(share_K).astype(np.int64)
    missing = round(fraction * len(labels_N)) - taken_K.sum()
    taken_K[np.argsort(taken_K - share_K, kind="stable")[:missing]] += 1  # largest remainders
    second_N = np.arange(len(labels_N)) < np.repeat(first_K + taken_K, count_K)
    return np.sort(order_N[~second_N]), np.sort(order_N[second_N])


def batch_indices(count: int, batch_size: int, step: int, seed: int, stream: str) -> NDArray[np.int64]:
    """Which of `count` images make up the batch of step `step` (0, 1, ...): int64 (batch_size,).

    A pure function of its arguments. The stream goes through one permutation per epoch, so every image comes exactly
    once an epoch; a batch may hold the end of one epoch and the start of the next, or, where it is larger than `count`,
    several whole epochs. Raises UserError if there are no images.
    """
    if count < 1:
        raise UserError(f"expected at least one image for the batches of {stream!r}, but got {count}.")
    first, last = step * batch_size, (step + 1) * batch_size
    pieces = [
        _permutation(count, seed, stream, epoch)[max(first - epoch * count, 0) : last - epoch * count]
        for epoch in range(first // count, (last - 1) // count + 1)
    ]
    return np.concatenate(pieces)


@lru_cache(maxsize=8)
def _permutation(count: int, seed: int, stream: str, epoch: int) -> NDArray[np.int64]:
    return seeds.generator(seed, stream, epoch).permutation(count)


def _labels(labels: ArrayLike, name: str) -> Tensor:
    labels_N = np.asarray(labels)
    if labels_N.ndim != 1 or not np.issubdtype(labels_N.dtype, np.integer):
        came = f"{labels_N.dtype} of shape {labels_N.shape}"
        raise UserError(
            f"{name}: expected labels as integers 0..K-1 of shape (N,), but got {came}; number the classes."
        )
    return torch.from_numpy(labels_N.astype(np.int64))
