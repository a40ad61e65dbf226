import numpy as np
import pytest
import torch

from raynas import seeds
from raynas.augmentation import Augmentation, Augmenter, augment, draw_augmentation, normalise
from raynas.config import DataSettings
from raynas.data import Dataset, split

SIDE = (7, 9)
MEAN_C, STD_C = torch.tensor([10.0, 100.0, 200.0]), torch.tensor([3.0, 50.0, 7.0])
RAW = torch.zeros(3), torch.ones(3)
"""Mean and standard deviation that leave grey levels as they are."""


def images(count=16, seed=0):
    pixels = np.random.default_rng(seed).integers(1, 256, (count, 3, *SIDE))
    return torch.from_numpy(pixels.astype(np.uint8))


def draws(count=16, seed=0, **settings):
    return draw_augmentation(np.random.default_rng(seed), count, SIDE, **settings)


def test_without_padding_flip_or_cutout_augmenting_is_normalising():
    batch = images()
    assert torch.equal(augment(batch, draws(), MEAN_C, STD_C), normalise(batch, MEAN_C, STD_C))


def test_normalising_subtracts_the_mean_and_divides_by_the_deviation_of_each_channel():
    batch = images()
    expected = (batch.double() - MEAN_C.double().view(3, 1, 1)) / STD_C.double().view(3, 1, 1)
    torch.testing.assert_close(normalise(batch, MEAN_C, STD_C), expected.float())


@pytest.mark.parametrize("rows", [slice(0, None, 2), slice(1, None, 2), slice(3, 9), np.array([5, 0, 11])])
def test_rows_of_a_batch_augmented_are_the_rows_of_the_augmented_batch(rows):
    batch, drawn = images(), draws(crop_padding=3, flip=True, cutout=4)
    whole = augment(batch, drawn, MEAN_C, STD_C)
    assert torch.equal(augment(batch[rows], drawn[rows], MEAN_C, STD_C), whole[rows])


def test_equal_generators_draw_equally_and_later_images_do_not_change_earlier_ones():
    settings = {"crop_padding": 2, "flip": True, "cutout": 3}
    np.testing.assert_array_equal(draws(8, **settings).draws_N5, draws(8, **settings).draws_N5)
    np.testing.assert_array_equal(draws(8, **settings).draws_N5, draws(16, **settings)[:8].draws_N5)
    assert (draws(8, seed=1, **settings).draws_N5 != draws(8, **settings).draws_N5).any()


def test_each_image_is_a_window_of_its_padded_self_flipped_or_not():
    padding, batch = 2, images(64)
    drawn = draws(64, crop_padding=padding, flip=True)
    padded = torch.nn.functional.pad(batch, [padding] * 4)
    height, width = SIDE
    for index, result in enumerate(augment(batch, drawn, *RAW)):
        top, left, flipped = drawn.draws_N5[index, :3]
        window = padded[index, :, top : top + height, left : left + width].float()
        assert torch.equal(result, window.flip(2) if flipped else window)


def test_crops_reach_every_shift_and_flips_both_sides_evenly():
    drawn = draws(4000, crop_padding=1, flip=True).draws_N5
    assert set(map(tuple, drawn[:, :2])) == {(top, left) for top in range(3) for left in range(3)}
    assert set(drawn[:, 2]) == {0, 1}
    assert abs(drawn[:, 2].mean() - 0.5) < 4 * 0.5 / np.sqrt(4000)
    assert set(map(tuple, drawn[:, 3:])) == {(row, column) for row in range(SIDE[0]) for column in range(SIDE[1])}


@pytest.mark.parametrize("length", [1, 4, 5])
def test_cutout_sets_one_square_to_the_mean_and_nothing_else(length):
    batch, drawn = images(64), draws(64, cutout=length)
    result, plain = augment(batch, drawn, MEAN_C, STD_C), normalise(batch, MEAN_C, STD_C)
    for index, (row, column) in enumerate(drawn.draws_N5[:, 3:]):
        rows = slice(max(row - length // 2, 0), row - length // 2 + length)
        columns = slice(max(column - length // 2, 0), column - length // 2 + length)
        expected = plain[index].clone()
        expected[:, rows, columns] = 0
        assert torch.equal(result[index], expected)


def test_cutout_erases_a_whole_square_away_from_the_border():
    drawn = Augmentation(np.array([[0, 0, 0, 3, 4]]), crop_padding=0, cutout=4)
    assert (augment(images(1), drawn, *RAW) == 0).sum() == 3 * 4 * 4


def test_channels_last_changes_the_layout_and_no_value():
    batch, drawn = images(), draws(crop_padding=1, flip=True, cutout=2)
    for make in (
        lambda **layout: augment(batch, drawn, MEAN_C, STD_C, **layout),
        lambda **layout: normalise(batch, MEAN_C, STD_C, **layout),
    ):
        assert torch.equal(make(), make(channels_last=True))
        assert make().is_contiguous()
        assert make(channels_last=True).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_the_images_and_the_statistics_are_left_as_they_were(dtype):
    batch, mean_C, std_C = images().to(dtype), MEAN_C.clone(), STD_C.clone()
    before = batch.clone()
    augment(batch, draws(crop_padding=1, flip=True, cutout=2), mean_C, std_C)
    normalise(batch, mean_C, std_C)
    assert torch.equal(batch, before)
    assert torch.equal(mean_C, MEAN_C)
    assert torch.equal(std_C, STD_C)


def test_the_layout_of_the_images_in_memory_does_not_matter():
    batch, drawn = images(), draws(crop_padding=1, flip=True, cutout=2)
    other = batch.contiguous(memory_format=torch.channels_last)
    assert torch.equal(augment(batch, drawn, MEAN_C, STD_C), augment(other, drawn, MEAN_C, STD_C))


def test_draws_for_another_number_of_images_are_refused():
    with pytest.raises(ValueError, match="expected draws for 16 images, but got 15"):
        augment(images(), draws(15), MEAN_C, STD_C)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_augments_as_the_cpu_does():
    batch, drawn = images(), draws(crop_padding=3, flip=True, cutout=4)
    result = augment(batch.cuda(), drawn, MEAN_C, STD_C)
    assert result.is_cuda
    torch.testing.assert_close(result.cpu(), augment(batch, drawn, MEAN_C, STD_C))


def test_an_augmenter_follows_the_settings_and_the_train_part():
    pixels = images(24)
    labels = torch.arange(24) % 2
    parts = split(Dataset(pixels, labels, pixels, labels, 2, "tiny"), 0.25, seed=3)
    settings = DataSettings(crop_padding=2, flip=True, cutout=3)
    augmenter = Augmenter(parts, settings, torch.device("cpu"))
    drawn = augmenter.draw(seeds.generator(0, "augmentation", 5), 4)
    expected = draw_augmentation(seeds.generator(0, "augmentation", 5), 4, SIDE, crop_padding=2, flip=True, cutout=3)
    np.testing.assert_array_equal(drawn.draws_N5, expected.draws_N5)
    batch = parts.train_images_NCHW[:4]
    assert torch.equal(augmenter(batch, drawn), augment(batch, expected, *parts.mean_std_C))
    assert torch.equal(augmenter(batch), normalise(batch, *parts.mean_std_C))
    everything = augmenter(parts.train_images_NCHW).double()
    torch.testing.assert_close(everything.mean((0, 2, 3)), torch.zeros(3).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(everything.std((0, 2, 3), correction=0), torch.ones(3).double(), atol=1e-5, rtol=0)
