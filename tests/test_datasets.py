import io
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10, CIFAR100

from raynas.data import load
from raynas.datasets.parquet import BATCH
from raynas.errors import UserError

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (12, 6, 5, 3)).astype(np.uint8)
GREY = RNG.integers(0, 256, (12, 6, 5)).astype(np.uint8)
LABELS = np.arange(12) % 3


def encoded(pixels, kind="PNG", mode=None):
    stream = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(stream, kind)
    return stream.getvalue()


def write_parquet(folder, images, labels=LABELS, test=slice(0, 3), columns=("img", "label")):
    """Two training files and a test file whose rows are the first three of the training rows."""
    for name, rows in {"train-0": slice(0, 7), "train-1": slice(7, None), "test": test}.items():
        table = pa.table(dict(zip(columns, (images[rows], pa.array(labels)[rows]), strict=True)))
        pq.write_table(table, folder / f"{name}.parquet")
    return f"parquet:{folder}"


def files(images):
    return pa.array(
        [{"bytes": image, "path": None} for image in images], pa.struct({"bytes": pa.binary(), "path": pa.string()})
    )


def refused(name, **settings):
    with pytest.raises(UserError) as error:
        load(name, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_listing_datasets_imports_nothing_heavy_and_names_them_all():
    code = (
        "import sys; from raynas.datasets import listing; print(*listing()); "
        "assert not {'torch', 'torchvision', 'pyarrow', 'sklearn', 'ray'} & set(sys.modules)"
    )
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert asked.stdout.split() == ["cifar10", "cifar100", "digits", "folder", "parquet", "package.module:function"]


# --- digits


def test_digits_are_all_there_once_with_a_stratified_fifth_for_testing():
    dataset = load("digits")
    values, labels = load_digits(return_X_y=True)
    pixels = torch.cat([dataset.train_images_NCHW, dataset.test_images_NCHW]).reshape(1797, 64).double().numpy()
    given = np.concatenate([dataset.train_labels_N, dataset.test_labels_N])
    together = np.column_stack([np.rint(pixels * 16 / 255), given])
    assert sorted(map(tuple, together)) == sorted(map(tuple, np.column_stack([values, labels])))
    assert dataset.train_images_NCHW.max() == 255
    assert len(dataset.test_labels_N) == 359
    assert (np.abs(np.bincount(dataset.test_labels_N) - 0.2 * np.bincount(labels)) < 1).all()
    assert load("digits").fingerprint == dataset.fingerprint


# --- parquet


@pytest.mark.parametrize(
    "images",
    [
        files([encoded(image) for image in COLOUR]),
        pa.array([encoded(image) for image in COLOUR]),
        pa.array([encoded(image) for image in COLOUR], pa.large_binary()),
        pa.array(COLOUR.tolist(), pa.list_(pa.list_(pa.list_(pa.uint8())))),
        pa.array(COLOUR.tolist()),
        pa.array(COLOUR.tolist(), pa.list_(pa.list_(pa.list_(pa.uint8(), 3), 5), 6)),
        pa.FixedShapeTensorArray.from_numpy_ndarray(COLOUR),
    ],
    ids=["struct", "binary", "large binary", "lists", "lists of int64", "fixed lists", "tensors"],
)
def test_parquet_images_come_back_pixel_by_pixel_in_order(tmp_path, images):
    dataset = load(write_parquet(tmp_path, images))
    np.testing.assert_array_equal(dataset.train_images_NCHW, COLOUR.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(dataset.test_images_NCHW, COLOUR[:3].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(dataset.train_labels_N, LABELS)
    np.testing.assert_array_equal(dataset.test_labels_N, LABELS[:3])
    assert dataset.classes == 3


@pytest.mark.parametrize("images", [pa.array([encoded(image) for image in GREY]), pa.array(GREY.tolist())])
def test_grey_images_have_one_channel(tmp_path, images):
    dataset = load(write_parquet(tmp_path, images, columns=("image", "fine_label")))
    np.testing.assert_array_equal(dataset.train_images_NCHW, GREY[:, None])


def test_a_few_grey_images_among_coloured_ones_are_given_three_channels(tmp_path):
    images = pa.array([encoded(GREY[0]), *[encoded(image) for image in COLOUR[1:]]])
    dataset = load(write_parquet(tmp_path, images, test=slice(0, 1)), resolution=None)
    assert dataset.image_shape_CHW == (3, 6, 5)
    np.testing.assert_array_equal(dataset.train_images_NCHW[0], np.repeat(GREY[:1], 3, 0))
    np.testing.assert_array_equal(dataset.test_images_NCHW[0], np.repeat(GREY[:1], 3, 0))


def test_palettes_transparency_and_16_bits_are_read_as_what_they_show(tmp_path):
    deep = GREY[0].astype(np.uint16) << 8
    images = pa.array([encoded(COLOUR[0], mode="RGBA"), encoded(GREY[1], mode="P"), encoded(deep)] * 4)
    pixels = load(write_parquet(tmp_path, images)).train_images_NCHW
    np.testing.assert_array_equal(pixels[0], COLOUR[0].transpose(2, 0, 1))
    np.testing.assert_array_equal(pixels[1], np.repeat(GREY[1:2], 3, 0))
    np.testing.assert_array_equal(pixels[2], np.repeat(GREY[:1], 3, 0))


def test_a_coloured_palette_keeps_its_colours(tmp_path):
    flat = np.zeros((6, 5, 3), np.uint8) + np.array([255, 0, 51], np.uint8)  # a colour of the web palette
    dataset = load(write_parquet(tmp_path, pa.array([encoded(flat, mode="P")] * 12)))
    np.testing.assert_array_equal(dataset.train_images_NCHW[0], flat.transpose(2, 0, 1))


def test_every_image_is_resized_as_it_would_be_alone(tmp_path):
    images = pa.array([encoded(COLOUR[0]), encoded(COLOUR[1][:5]), *[encoded(image) for image in COLOUR[2:]]])
    mixed = load(write_parquet(tmp_path, images), resolution=3)
    assert mixed.image_shape_CHW == (3, 3, 3)
    alike = load(write_parquet(tmp_path, files([encoded(image) for image in COLOUR])), resolution=3)
    keep = [0, *range(2, 12)]
    assert torch.equal(mixed.train_images_NCHW[keep], alike.train_images_NCHW[keep])
    alone = Image.fromarray(COLOUR[0]).resize((3, 3), Image.Resampling.BILINEAR)  # Pillow antialiases
    difference = alike.train_images_NCHW[0].int() - torch.from_numpy(
        np.asarray(alone).transpose(2, 0, 1).astype(np.int32)
    )
    assert difference.abs().max() <= 1


def test_arrays_of_different_sizes_need_a_resolution(tmp_path):
    name = write_parquet(tmp_path, pa.array([COLOUR[0][:4].tolist(), *COLOUR[1:].tolist()]))
    assert "set data.resolution" in refused(name)
    assert load(name, resolution=4).image_shape_CHW == (3, 4, 4)


def test_files_of_different_sizes_need_a_resolution(tmp_path):
    name = write_parquet(tmp_path, pa.array([encoded(COLOUR[0][:4]), *[encoded(image) for image in COLOUR[1:]]]))
    assert "2 different sizes (4x5, 6x5 ...); set data.resolution" in refused(name)


def test_a_missing_parquet_file_is_named_with_what_is_there(tmp_path):
    assert "expected train*.parquet" in refused(f"parquet:{tmp_path}")
    name = write_parquet(tmp_path, files([encoded(image) for image in COLOUR]))
    (tmp_path / "test.parquet").rename(tmp_path / "validation.parquet")
    said = refused(name)
    assert "expected test*.parquet" in said
    assert "train-0.parquet, train-1.parquet, validation.parquet" in said


@pytest.mark.parametrize("kept", [0, 3, 100, -20])
def test_a_truncated_parquet_file_is_named(tmp_path, kept):
    name = write_parquet(tmp_path, files([encoded(image) for image in COLOUR]))
    file = tmp_path / "train-1.parquet"
    file.write_bytes(file.read_bytes()[:kept])
    said = refused(name)
    assert "train-1.parquet is not a whole Parquet file" in said


def test_a_parquet_file_with_broken_pages_is_named(tmp_path):
    name = write_parquet(tmp_path, files([encoded(image) for image in COLOUR]))
    file = tmp_path / "train-1.parquet"
    content = bytearray(file.read_bytes())
    content[4:200] = bytes(196)
    file.write_bytes(content)
    assert "train-1.parquet" in refused(name)


@pytest.mark.parametrize("columns", [("picture", "label"), ("img", "kind")])
def test_other_columns_are_refused_with_those_that_are_there(tmp_path, columns):
    said = refused(write_parquet(tmp_path, files([encoded(image) for image in COLOUR]), columns=columns))
    assert f"but it has {', '.join(columns)}" in said


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (pa.array(range(12)), "but it is int64"),
        (pa.array(["a.png"] * 12), "but it is string"),
        (pa.array((COLOUR / 255).tolist()), "expected images as integers 0..255 (uint8), but got double"),
        (pa.array((COLOUR.astype(int) + 1000).tolist()), "expected pixels in 0..255"),
        (pa.array(COLOUR.reshape(12, -1).tolist()), "but got (7, 90)"),
        (pa.array([None, *COLOUR[1:].tolist()]), "row 0"),
        (pa.array([[[1, None], [2, 3]]] * 12), "pixels are empty"),
        (pa.array([None, *[encoded(image) for image in COLOUR[1:]]]), "train-0.parquet row 0 holds no image bytes"),
        (files([*[encoded(image) for image in COLOUR[:9]], b"", b"", b""]), "train-1.parquet row 2 holds no image"),
        (
            files([*[encoded(image) for image in COLOUR[:8]], *[encoded(image)[:80] for image in COLOUR[8:]]]),
            "train-1.parquet row 1 is no readable image",
        ),
        (pa.array([encoded(COLOUR[0], "JPEG")[:300]] * 12), "train-0.parquet row 0 is no readable image"),
        (pa.array([b"hello"] * 12), "row 0 is no readable image (no format that Pillow knows)"),
    ],
)
def test_rows_that_hold_no_image_are_refused_by_name(tmp_path, images, said):
    assert said.replace("double", "float64") in refused(write_parquet(tmp_path, images))


def test_a_row_is_counted_from_the_start_of_its_file(tmp_path):
    name = write_parquet(tmp_path, pa.array(COLOUR.tolist()))
    pixels = [[[7]]] * (2 * BATCH)
    pixels[BATCH + 5] = None
    pq.write_table(pa.table({"img": pixels, "label": [0, 1] * BATCH}), tmp_path / "train-0.parquet")
    assert f"train-0.parquet column 'img' row {BATCH + 5}: expected images" in refused(name)


def test_columns_may_come_in_any_order_and_others_are_left_alone(tmp_path):
    name = write_parquet(tmp_path, files([encoded(image) for image in COLOUR]))
    expected = load(name)
    for file in tmp_path.glob("*.parquet"):
        table = pq.read_table(file)
        table = table.select(["label", "img"]).add_column(1, "coarse_label", [["a"] * len(table)])
        pq.write_table(table, file)
    assert load(name).fingerprint == expected.fingerprint


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (LABELS * 1.0, "expected integers in the column 'label', but got double"),
        (LABELS.astype(str), "but got string"),
        ([None, *LABELS[1:]], "but got 1 empty rows"),
        (LABELS - 1, "training labels must be 0..1, each at least once, but there are 3 different ones from -1 to 1"),
        (np.where(LABELS == 1, 7, LABELS), "3 different ones from 0 to 7"),
        (LABELS * 0, "at least two classes"),
    ],
)
def test_labels_that_are_not_class_numbers_are_refused(tmp_path, labels, said):
    assert said in refused(write_parquet(tmp_path, files([encoded(image) for image in COLOUR]), labels))


def test_parquet_files_without_rows_are_refused(tmp_path):
    images = files([encoded(image) for image in COLOUR])
    assert "holds no test images" in refused(write_parquet(tmp_path, images, test=slice(0, 0)))


def test_cifar10_as_published_in_parquet_loads(tmp_path):
    if not (SHARED / "cifar10").is_dir():
        pytest.skip("needs ../shared/data/cifar10")
    for part in ("train", "test"):  # the files as they are, but shorter
        rows = pq.ParquetFile(SHARED / "cifar10" / f"{part}.parquet").read_row_group(0).slice(0, 200)
        pq.write_table(rows, tmp_path / f"{part}.parquet")
    dataset = load(f"parquet:{tmp_path}")
    assert dataset.image_shape_CHW == (3, 32, 32)
    np.testing.assert_array_equal(dataset.test_labels_N, rows["label"])
    for pixels, row in zip(dataset.test_images_NCHW, rows["img"].to_pylist(), strict=True):
        expected = np.asarray(Image.open(io.BytesIO(row["bytes"])))
        np.testing.assert_array_equal(pixels, expected.transpose(2, 0, 1))


# --- folders


def write_folder(root, names=("ant", "bee", "cow")):
    for part, rows in {"train": range(12), "test": range(3)}.items():
        for row in rows:
            folder = root / part / names[LABELS[row]]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{row:02d}.png").write_bytes(encoded(COLOUR[row]))
    return f"folder:{root}"


def test_a_folders_images_come_with_the_class_of_their_folder(tmp_path):
    dataset = load(write_folder(tmp_path))
    order = np.argsort(LABELS, kind="stable")
    np.testing.assert_array_equal(dataset.train_images_NCHW, COLOUR[order].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(dataset.train_labels_N, LABELS[order])
    np.testing.assert_array_equal(dataset.test_images_NCHW, COLOUR[:3].transpose(0, 3, 1, 2))
    assert dataset.classes == 3


def test_a_folder_without_a_part_is_refused(tmp_path):
    name = write_folder(tmp_path)
    (tmp_path / "test").rename(tmp_path / "val")
    assert f"expected a folder {tmp_path / 'test'}" in refused(name)


def test_a_folder_without_classes_or_with_an_empty_one_is_refused(tmp_path):
    (tmp_path / "train").mkdir()
    assert "expected one folder of images per class" in refused(f"folder:{tmp_path}")
    (tmp_path / "train" / "ant").mkdir()
    assert "ant" in refused(f"folder:{tmp_path}")


def test_a_class_in_one_part_only_is_named(tmp_path):
    name = write_folder(tmp_path)
    (tmp_path / "test" / "cow").rename(tmp_path / "test" / "dog")
    assert "only one of them holds cow, dog" in refused(name)


def test_a_corrupt_file_is_named(tmp_path):
    name = write_folder(tmp_path)
    file = tmp_path / "train" / "bee" / "04.png"
    file.write_bytes(file.read_bytes()[:50])
    assert f"{file} is no readable image" in refused(name)
    file.write_bytes(b"")
    assert f"{file} is no readable image" in refused(name)


# --- CIFAR as torchvision stores it


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """Batches in CIFAR's own format, the real class reading them; no download can succeed."""
    monkeypatch.setenv("RAYNAS_DATA", str(tmp_path))
    rows = COLOUR[:, :5].transpose(0, 3, 1, 2).repeat(7, 2)[:, :, :32].repeat(7, 3)[..., :32]
    for source, key, file in ((CIFAR10, "labels", "data_batch_1"), (CIFAR100, "fine_labels", "train")):
        folder = tmp_path / source.base_folder
        folder.mkdir()
        monkeypatch.setattr(source, "url", "http://127.0.0.1:9/nothing")
        for attribute, name, count in (("train_list", file, 12), ("test_list", "test_batch", 3)):
            content = {"data": rows[:count].reshape(count, -1), key: LABELS[:count].tolist()}
            (folder / name).write_bytes(pickle.dumps(content))
            monkeypatch.setattr(source, attribute, [[name, None]])
        meta = {source.meta["key"]: ["ant", "bee", "cow"]}
        (folder / source.meta["filename"]).write_bytes(pickle.dumps(meta))
        monkeypatch.setattr(source, "meta", {**source.meta, "md5": None})
    return rows


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_read_from_where_it_was_downloaded_before(cifar, name):
    dataset = load(name)
    np.testing.assert_array_equal(dataset.train_images_NCHW, cifar)
    np.testing.assert_array_equal(dataset.test_images_NCHW, cifar[:3])
    np.testing.assert_array_equal(dataset.train_labels_N, LABELS)
    assert load(name, resolution=16).image_shape_CHW == (3, 16, 16)


def test_a_download_that_fails_says_where_the_file_may_be_put(cifar, tmp_path):
    (tmp_path / CIFAR10.base_folder / "test_batch").unlink()
    said = refused("cifar10")
    assert f"cannot get CIFAR10 from http://127.0.0.1:9/nothing into {tmp_path}" in said
    assert f"put {CIFAR10.filename} there" in said
