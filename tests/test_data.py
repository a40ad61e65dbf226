import dataclasses
import sys
import warnings

import numpy as np
import pytest
import torch

from raynas import seeds
from raynas.augmentation import Augmenter
from raynas.config import DataSettings
from raynas.data import Dataset, batch_indices, load, split, stratified
from raynas.errors import UserError


def tiny(train_labels=(0, 1, 2) * 8, test_labels=(0, 1, 2), shape=(3, 4, 5), seed=0, **changes):
    rng = np.random.default_rng(seed)
    pixels = [
        torch.from_numpy(rng.integers(0, 256, (len(labels), *shape)).astype(np.uint8))
        for labels in (train_labels, test_labels)
    ]
    fields = {
        "train_images_NCHW": pixels[0],
        "train_labels_N": torch.tensor(train_labels),
        "test_images_NCHW": pixels[1],
        "test_labels_N": torch.tensor(test_labels),
        "classes": 3,
        "name": "tiny",
    }
    return Dataset(**{**fields, **changes})


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    return text


# --- the stream of batches


@pytest.mark.parametrize(("count", "batch_size"), [(10, 4), (12, 4), (7, 7), (3, 8), (1, 5), (45, 64)])
def test_every_image_comes_exactly_once_an_epoch(count, batch_size):
    steps = 3 * count  # the end of a batch falls on the end of an epoch
    stream = np.concatenate([batch_indices(count, batch_size, step, 7, "train") for step in range(steps)])
    assert stream.dtype == np.int64
    assert len(stream) == steps * batch_size
    for epoch in stream.reshape(-1, count):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(count))


def test_a_batch_does_not_depend_on_the_batches_asked_for_before():
    in_order = [batch_indices(23, 5, step, 1, "train") for step in range(40)]
    for step in reversed(range(40)):
        batch_indices(23, 5, step + 100, 2, "other")
        np.testing.assert_array_equal(batch_indices(23, 5, step, 1, "train"), in_order[step])


def test_an_epoch_is_the_permutation_that_its_seed_stream_and_number_draw():
    epoch = [batch_indices(20, 5, step, 9, "train") for step in range(12, 16)]
    np.testing.assert_array_equal(np.concatenate(epoch), seeds.generator(9, "train", 3).permutation(20))


def test_epochs_seeds_and_streams_have_orders_of_their_own():
    orders = [
        batch_indices(50, 50, step, seed, stream).tolist()
        for step, seed, stream in [(0, 0, "train"), (1, 0, "train"), (0, 1, "train"), (0, 0, "validation")]
    ]
    assert len({tuple(order) for order in orders}) == 4


def test_a_caller_may_write_into_its_batch():
    batch = batch_indices(9, 4, 0, 0, "train")
    expected = batch.copy()
    batch[:] = -1
    np.testing.assert_array_equal(batch_indices(9, 4, 0, 0, "train"), expected)


def test_a_stream_of_no_images_is_refused():
    with pytest.raises(UserError) as error:
        batch_indices(0, 4, 0, 0, "train")
    assert "at least one image" in one_line(error)


# --- the split


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, 0.77])
def test_train_and_validation_are_disjoint_and_together_the_whole(fraction):
    labels = np.random.default_rng(0).integers(0, 5, 203)
    train, validation = stratified(labels, fraction, np.random.default_rng(1))
    np.testing.assert_array_equal(np.sort(np.concatenate([train, validation])), np.arange(203))
    assert len(validation) == round(203 * fraction)


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, 0.77])
def test_every_class_is_split_alike_to_within_one_image(fraction):
    labels = np.repeat(np.arange(6), [1, 2, 3, 50, 400, 1000])
    _, validation = stratified(labels, fraction, np.random.default_rng(1))
    taken = np.bincount(labels[validation], minlength=6)
    assert (np.abs(taken - fraction * np.bincount(labels)) < 1).all()


def test_the_split_depends_on_the_seed_and_on_nothing_else():
    dataset = tiny()
    first, again, other = (split(dataset, 0.25, seed) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first.validation_rows_N, again.validation_rows_N)
    assert set(first.validation_rows_N) != set(other.validation_rows_N)


def test_within_a_class_the_validation_images_are_drawn_at_random():
    labels = np.zeros(1000, np.int64)
    _, validation = stratified(labels, 0.5, np.random.default_rng(0))
    assert 200 < (validation < 500).sum() < 300


def test_the_parts_hold_the_images_and_labels_of_their_rows():
    dataset = tiny()
    parts = split(dataset, 0.25, 0)
    assert torch.equal(parts.train_images_NCHW, dataset.train_images_NCHW[parts.train_rows_N])
    assert torch.equal(parts.train_labels_N, dataset.train_labels_N[parts.train_rows_N])
    assert torch.equal(parts.validation_images_NCHW, dataset.train_images_NCHW[parts.validation_rows_N])
    assert torch.equal(parts.validation_labels_N, dataset.train_labels_N[parts.validation_rows_N])


def test_mean_and_deviation_come_from_the_train_part_alone():
    dataset = tiny()
    parts = split(dataset, 0.25, 0)
    dataset.train_images_NCHW[parts.validation_rows_N] = 255
    dataset.test_images_NCHW.fill_(255)
    mean_C, std_C = parts.mean_std_C
    pixels = parts.train_images_NCHW.double()
    torch.testing.assert_close(mean_C, pixels.mean((0, 2, 3)).float())
    torch.testing.assert_close(std_C, pixels.std((0, 2, 3), correction=0).float())


def test_a_constant_channel_has_the_deviation_one():
    dataset = tiny()
    dataset.train_images_NCHW[:, 1] = 9
    mean_C, std_C = split(dataset, 0.25, 0).mean_std_C
    assert (mean_C[1], std_C[1]) == (9, 1)


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_a_split_with_an_empty_part_is_refused(fraction):
    with pytest.raises(UserError) as error:
        split(tiny(), fraction, 0)
    assert "validation_fraction" in one_line(error)


# --- the dataset


def test_arrays_come_back_as_the_same_dataset_on_the_same_memory():
    dataset = tiny()
    again = Dataset.from_numpy(dataset.to_numpy())
    assert again.train_images_NCHW.data_ptr() == dataset.train_images_NCHW.data_ptr()
    assert (again.classes, again.name, again.fingerprint) == (dataset.classes, dataset.name, dataset.fingerprint)
    for field in ("train_images_NCHW", "train_labels_N", "test_images_NCHW", "test_labels_N"):
        assert torch.equal(getattr(again, field), getattr(dataset, field))


@pytest.fixture
def always_warn():
    """Torch warns of a read-only array once in a process; let it do so each time."""
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(False)


def test_read_only_arrays_work_without_a_warning_and_stay_as_they_are(always_warn):
    values = tiny().to_numpy()
    arrays = {key: value for key, value in values.items() if isinstance(value, np.ndarray)}
    before = {key: array.copy() for key, array in arrays.items()}
    for array in arrays.values():
        array.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = Dataset.from_numpy(values)
        parts = split(dataset, 0.25, 0)
        augmenter = Augmenter(parts, DataSettings(cutout=2, flip=True), torch.device("cpu"))
        for images in (parts.train_images_NCHW, parts.validation_images_NCHW, dataset.test_images_NCHW):
            augmenter(images, augmenter.draw(np.random.default_rng(0), len(images)))
            augmenter(images)
        assert dataset.fingerprint
    for key, array in arrays.items():
        np.testing.assert_array_equal(array, before[key])


def test_the_fingerprint_names_the_content_and_not_where_it_came_from():
    dataset = tiny()
    assert dataclasses.replace(dataset, name="elsewhere").fingerprint == dataset.fingerprint
    assert tiny(seed=1).fingerprint != dataset.fingerprint
    assert tiny(test_labels=(0, 2, 1)).fingerprint != dataset.fingerprint
    assert tiny(shape=(3, 5, 4)).fingerprint != tiny(shape=(3, 4, 5)).fingerprint


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train_images_NCHW": torch.zeros(24, 3, 4, 5)}, "expected train images as uint8"),
        ({"train_images_NCHW": torch.zeros(24, 4, 5, dtype=torch.uint8)}, r"got torch.uint8 (24, 4, 5)"),
        ({"test_images_NCHW": torch.zeros(0, 3, 4, 5, dtype=torch.uint8)}, "expected test images"),
        ({"test_images_NCHW": torch.zeros(3, 3, 4, 4, dtype=torch.uint8)}, "set data.resolution"),
        ({"train_labels_N": torch.tensor((0, 1, 2))}, "expected 24 train labels"),
        ({"test_labels_N": torch.tensor((0.0, 1.0, 2.0))}, "as int64, but got torch.float32"),
        ({"test_labels_N": torch.tensor((0, 3, 2))}, "test image 1 has the label 3, but training labels are 0..2"),
        ({"test_labels_N": torch.tensor((0, 1, -1))}, "test image 2 has the label -1"),
        ({"train_labels_N": torch.tensor((-1, 1, 2) * 8)}, "from -1 to 2"),
        ({"train_labels_N": torch.tensor((0, 0, 2) * 8)}, "2 different ones from 0 to 2"),
        ({"classes": 1}, "at least two classes"),
    ],
)
def test_a_dataset_that_is_not_one_is_refused_in_one_line(changes, said):
    with pytest.raises(UserError) as error:
        tiny(**changes)
    assert said in one_line(error)


# --- loading by name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("digit", "unknown dataset 'digit'; did you mean 'digits'?"),
        ("cifar", "did you mean 'cifar10'?"),
        ("", "unknown dataset ''"),
        ("paquet:/data", "did you mean 'parquet'?"),
        ("no_such_module_here:make", "no module 'no_such_module_here' here"),
        ("digits:/data", "takes no directory"),
        ("cifar10:/data", "takes no directory"),
        ("cifar100:", "takes no directory"),
        ("folder", "write folder:DIR"),
        ("parquet:", "write parquet:DIR"),
        ("folder:/no/such/place", "/no/such/place is none"),
        ("parquet:/no/such/place", "/no/such/place is none"),
    ],
)
def test_a_name_that_is_none_is_refused_with_the_nearest(name, said):
    with pytest.raises(UserError) as error:
        load(name)
    assert said in one_line(error)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a user's own module and gives the name of a dataset made by its function `make`."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(body, name=f"users_data_{tmp_path.name.replace('-', '_')}"):
        (tmp_path / f"{name}.py").write_text(f"import numpy as np\nimport torch\n{body}\n")
        return f"{name}:make"

    yield write
    for name in [name for name in sys.modules if name.startswith("users_data_")]:
        del sys.modules[name]


ARRAYS = """
rng = np.random.default_rng(0)
TRAIN, TEST = (rng.integers(0, 256, (n, 6, 5, 3)).astype(np.uint8) for n in (12, 4))
LABELS, TEST_LABELS = np.arange(12) % 3, [0, 1, 2, 0]
"""


@pytest.mark.parametrize(
    "made",
    [
        "TRAIN, LABELS, TEST, TEST_LABELS",
        "TRAIN.transpose(0, 3, 1, 2), LABELS, TEST.transpose(0, 3, 1, 2), TEST_LABELS",
        "torch.from_numpy(TRAIN), torch.from_numpy(LABELS), torch.from_numpy(TEST), TEST_LABELS",
        "list(TRAIN), list(LABELS), list(TEST), TEST_LABELS",
        "[TRAIN.astype(np.int64), LABELS.astype(np.int8), TEST, tuple(TEST_LABELS)]",
    ],
)
def test_a_users_function_may_give_its_images_in_any_of_the_layouts(module, made):
    name = module(f"{ARRAYS}\ndef make():\n    return {made}")
    dataset = load(name)
    rng = np.random.default_rng(0)
    expected = rng.integers(0, 256, (12, 6, 5, 3)).astype(np.uint8).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(dataset.train_images_NCHW, expected)
    assert dataset.train_labels_N.tolist() == [0, 1, 2] * 4
    assert dataset.test_labels_N.tolist() == [0, 1, 2, 0]
    assert (dataset.classes, dataset.name, dataset.image_shape_CHW) == (3, name, (3, 6, 5))


def test_images_without_a_channel_have_one(module):
    name = module(f"{ARRAYS}\ndef make():\n    return TRAIN[..., 0], LABELS, TEST[..., 0], TEST_LABELS")
    assert load(name).image_shape_CHW == (1, 6, 5)


def test_images_of_different_sizes_are_stretched_to_the_resolution_asked_for(module):
    name = module(f"{ARRAYS}\ndef make():\n    return [TRAIN[0][:4], *TRAIN[1:]], LABELS, TEST, TEST_LABELS")
    dataset = load(name, resolution=4)
    assert dataset.image_shape_CHW == (3, 4, 4)
    with pytest.raises(UserError) as error:
        load(name)
    assert "2 different sizes (4x5, 6x5 ...); set data.resolution" in one_line(error)


def test_a_users_function_may_make_a_dataset_with_any_channels(module):
    part = "torch.zeros(6, 5, 8, 8, dtype=torch.uint8), torch.arange(6) % 2"
    name = module(f"from raynas.data import Dataset\ndef make():\n    return Dataset({part}, {part}, 2, 'x')")
    assert load(name).image_shape_CHW == (5, 8, 8)
    assert load(name).name == name
    assert load(name, resolution=4).image_shape_CHW == (5, 4, 4)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("None", "returned NoneType"),
        ("TRAIN, LABELS", "returned 2 values"),
        ("TRAIN / 255, LABELS, TEST, TEST_LABELS", "expected images as integers 0..255 (uint8), but got float64"),
        ("'a', 'b', 'c', 'd'", "expected images as integers"),
        ("[None, *TRAIN], LABELS, TEST, TEST_LABELS", "train row 0: expected images as integers"),
        ("TRAIN.astype(int) * 2, LABELS, TEST, TEST_LABELS", "expected pixels in 0..255"),
        ("TRAIN.reshape(12, -1), LABELS, TEST, TEST_LABELS", "but got (12, 90)"),
        ("TRAIN.reshape(12, 5, 9, 2), LABELS, TEST, TEST_LABELS", "but got (12, 5, 9, 2)"),
        ("TRAIN[:0], LABELS[:0], TEST, TEST_LABELS", "holds no training images"),
        ("TRAIN, LABELS, [], []", "holds no test images"),
        ("TRAIN, LABELS, TEST[:, :5], TEST_LABELS", "set data.resolution"),
        ("TRAIN, LABELS[1:], TEST, TEST_LABELS", "expected 12 train labels"),
        ("TRAIN, LABELS * 1.0, TEST, TEST_LABELS", "expected labels as integers 0..K-1"),
        ("TRAIN, LABELS.astype(str), TEST, TEST_LABELS", "expected labels as integers 0..K-1"),
        ("TRAIN, LABELS[:, None], TEST, TEST_LABELS", "of shape (12, 1)"),
        ("TRAIN, LABELS - 1, TEST, TEST_LABELS", "different ones from -1 to 1"),
        ("TRAIN, LABELS * 2, TEST, TEST_LABELS", "3 different ones from 0 to 4"),
        ("TRAIN, LABELS, TEST, [0, 1, 2, 3]", "test image 3 has the label 3"),
        ("1 / 0", "with ZeroDivisionError: division by zero"),
    ],
)
def test_nonsense_from_a_users_function_is_refused_in_one_line(module, made, said):
    name = module(f"{ARRAYS}\ndef make():\n    return {made}")
    with pytest.raises(UserError) as error:
        load(name)
    assert said in one_line(error)
    assert name.partition(":")[0] in one_line(error)


def test_a_users_module_that_cannot_be_imported_is_told_with_its_line(module):
    with pytest.raises(UserError, match=r"\.py:3 with ModuleNotFoundError: No module named 'a_library_that"):
        load(module("import a_library_that_is_not_installed"))


def test_a_function_that_is_not_there_is_named_with_the_nearest(module):
    name = module(f"{ARRAYS}\ndef make_digits():\n    return TRAIN, LABELS, TEST, TEST_LABELS")
    with pytest.raises(UserError) as error:
        load(name)
    assert "holds no function 'make'; did you mean 'make_digits'?" in one_line(error)
