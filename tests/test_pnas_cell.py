from functools import partial
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
import torch

from raynas.errors import UserError
from raynas.testing import (
    check_blocks_are_those_of_the_supernet,
    check_canonical_form_is_the_same_network,
    check_costs_are_those_of_the_subnet,
    check_gradients_stay_on_the_path,
    check_notation_is_read_back,
    check_one_hot_weights_are_the_path,
    check_subnet_is_its_path,
)
from search_spaces.pnas_cell import OPERATIONS, SPACE, Block, canonical, space, supernet

GROWING = space(blocks=2, growing=True)
GROWING_SUPERNET = partial(supernet, blocks=2, growing=True, repeats=1, filters=4)
PNASNET_5 = (
    "sep_conv_5x5~0+max_pool_3x3~0|sep_conv_7x7~1+max_pool_3x3~1|sep_conv_5x5~1+sep_conv_3x3~1|"
    "sep_conv_3x3~4+max_pool_3x3~1|sep_conv_3x3~0+identity~1"
)


def _pair(operation: str, source: int) -> int:
    return source * len(OPERATIONS) + OPERATIONS.index(operation)


def _renamed(cell: list[Block], order: tuple[int, ...]) -> list[Block] | None:
    """The same cell with its blocks in another order; None if a block would stand before what it reads."""
    place = {old: new for new, old in enumerate(order)}
    sources = {(new, choice // 8 - 2) for new, old in enumerate(order) for choice in cell[old]}
    if any(source >= 0 and place[source] >= new for new, source in sources):
        return None
    moved = [
        [choice if choice < 16 else (place[choice // 8 - 2] + 2) * 8 + choice % 8 for choice in cell[old]]
        for old in order
    ]
    return [(left, right) for left, right in moved]


def test_one_block_has_256_keys_of_136_networks() -> None:
    one = space(blocks=1)
    assert one.size == 256
    assert len({one.canonicalise(key) for key in product(range(16), repeat=2)}) == 136  # Liu et al., section 4.1


def test_two_blocks_have_as_many_networks_as_counted_by_hand() -> None:
    two = space(blocks=2)
    apart = 136 * 137 // 2  # unordered pairs of blocks of which neither reads the other
    chained = 136 * (300 - 136)  # 24 pairs make 300 unordered blocks, of which 136 don't read the first block
    sides = [[(left, right) for left in range(size) for right in range(left, size)] for size in (16, 24)]
    assert len({two.canonicalise((*first, *second)) for first, second in product(*sides)}) == apart + chained == 31_620


def test_five_blocks_have_5_6e14_keys() -> None:
    assert SPACE.size == np.prod([((block + 2) * 8) ** 2 for block in range(5)], dtype=object) == 556_627_761_561_600


def test_neither_sides_nor_the_order_of_blocks_matter_where_the_network_is_the_same() -> None:
    rng = np.random.default_rng(0)
    orders = 0
    for _ in range(40):
        key = SPACE.sample(rng)
        cell = list(zip(key[::2], key[1::2], strict=True))
        for order in permutations(range(5)):
            if (other := _renamed(cell, order)) is not None:
                orders += order != (0, 1, 2, 3, 4)
                assert canonical([(right, left) for left, right in other]) == canonical(cell)
    assert orders > 100


def test_a_block_read_twice_is_another_network_than_two_equal_blocks_read_once() -> None:
    same = (_pair("identity", 0), _pair("sep_conv_3x3", 1))
    twice = [same, same, (_pair("identity", 2), _pair("identity", 2))]
    once = [same, same, (_pair("identity", 2), _pair("identity", 3))]
    assert canonical(twice) != canonical(once)
    assert canonical(twice) == canonical([same, same, (_pair("identity", 3), _pair("identity", 3))])


def test_pnasnet_5_has_its_published_parameters() -> None:
    with torch.device("meta"):  # shapes alone: the supernet of 48 filters takes a gigabyte
        network = supernet(in_channels=3, classes=10, resolution=32, repeats=3, filters=48)
        subnet = network.subnet(SPACE.parse(PNASNET_5))
    count = sum(parameter.numel() for parameter in subnet.parameters())
    assert count / 1e6 == pytest.approx(3.2, abs=0.05)  # table 3 of the paper


def test_a_growing_cell_has_one_to_all_blocks() -> None:
    assert GROWING.blocks[0].choices == ("1", "2")
    assert GROWING.size == 2 * space(blocks=2).size
    one, two = "identity~0+identity~1", "identity~0+identity~1|sep_conv_3x3~2+identity~0"
    assert GROWING.parse(one) == (0, 4, 12, 0, 0)
    assert GROWING.parse(two) == (1, 4, 12, 16, 4)
    assert GROWING.print((0, 4, 12, 16, 4)) == two.replace("|", "||")  # what the second block would be
    assert GROWING.canonicalise((0, 12, 4, 23, 23)) == GROWING.parse(one)
    assert len({GROWING.canonicalise((0, *key, 1, 1)) for key in product(range(16), repeat=2)}) == 136


def test_a_cell_of_another_number_of_blocks_is_refused() -> None:
    with pytest.raises(UserError, match="expected 5 blocks, but got 1"):
        SPACE.parse("identity~0+identity~1")
    with pytest.raises(UserError, match="expected at most 2 blocks, but got 5"):
        GROWING.parse(PNASNET_5)


@pytest.mark.parametrize("term", ["", "identity~0", "identity~0+identity~2", "identity+identity", "conv~0+identity~0"])
def test_what_is_no_block_is_refused(term: str) -> None:
    with pytest.raises(UserError, match="expected operation~input"):
        space(blocks=1).parse(term)


@pytest.mark.parametrize(
    "check",
    [
        check_blocks_are_those_of_the_supernet,
        check_subnet_is_its_path,
        check_one_hot_weights_are_the_path,
        check_gradients_stay_on_the_path,
        check_costs_are_those_of_the_subnet,
        check_canonical_form_is_the_same_network,
        check_notation_is_read_back,
    ],
    ids=lambda check: check.__name__.removeprefix("check_"),
)
def test_growing_space(check: Any) -> None:
    check(GROWING, GROWING_SUPERNET)


def test_settings_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="filters=0"):
        supernet(in_channels=3, classes=4, resolution=8, filters=0)
    with pytest.raises(ValueError, match="blocks=0"):
        space(blocks=0)
