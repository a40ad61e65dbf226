from functools import partial
from typing import Any, get_args

import pytest
import torch
from torch import nn

from raynas.errors import UserError
from raynas.space import Cell
from raynas.supernet import seeded
from raynas.testing import (
    check_blocks_are_those_of_the_supernet,
    check_canonical_form_is_the_same_network,
    check_costs_are_those_of_the_subnet,
    check_gradients_stay_on_the_path,
    check_notation_is_read_back,
    check_one_hot_weights_are_the_path,
    check_subnet_is_its_path,
)
from search_spaces.width_depth import SPACE, Grid, Variant, space, supernet

FEW: dict[str, Any] = {"counts": (1, 2), "multiples": (0.5, 1.0), "depths": (1, 3), "links": (0, 1, 2)}
VARIANTS = get_args(Variant)
CHECKS = (
    check_blocks_are_those_of_the_supernet,
    check_subnet_is_its_path,
    check_one_hot_weights_are_the_path,
    check_gradients_stay_on_the_path,
    check_costs_are_those_of_the_subnet,
    check_canonical_form_is_the_same_network,
    check_notation_is_read_back,
)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_each_variant_with_a_chosen_number_of_cells(check: Any, variant: Variant) -> None:
    check(space(variant=variant, **FEW), partial(supernet, variant=variant, channels=4, **FEW))


def test_the_space_has_more_than_63e9_keys() -> None:
    assert SPACE.size == (8 * 8 * 8) ** 4 > 63e9


def test_cells_say_width_layers_and_links() -> None:
    grid = Grid("dense", channels=8, **FEW)
    assert grid.cells((1, 0, 1, 2, 1, 0, 2)) == (Cell(4, 3, 4 * (0 + 1 + 2), 1), Cell(16, 1, 0, 0.25))
    assert grid.cells((0, 0, 1, 1, 1, 1, 1)) == (Cell(4, 3, 4 * (0 + 1 + 1), 1),)
    added = Grid("residual", channels=8, **FEW)
    assert added.cells((1, 0, 1, 2, 1, 0, 2)) == (Cell(4, 3, 4 * (1 + 2 + 2), 1), Cell(16, 1, 16, 0.25))


def test_cells_of_choices_in_between_lie_between_those_of_the_choices() -> None:
    grid = Grid("dense", channels=8, **FEW)
    assert grid.cells((0, 0.5, 0, 0, 0, 0, 0)) == (Cell(6, 1, 0, 1),)
    assert grid.cells((0, 0, 1, 1.5, 0, 0, 0)) == (Cell(4, 3, 4 * (0 + 1 + 1.5), 1),)
    assert grid.cells((0, 0, 0.75, 2, 0, 0, 0)) == (Cell(4, 2.5, 4 * (0 + 1 + 0.5 * 2), 1),)


@pytest.mark.parametrize("variant", VARIANTS)
def test_cells_count_the_links_that_the_subnet_has(variant: Variant) -> None:
    """A concatenated link is a convolution of the subnet, an added one moves the logits."""
    space_ = space(variant=variant, **FEW)
    grid = Grid(variant, channels=4, **FEW)
    network = seeded(supernet, 0, in_channels=3, classes=5, resolution=8, variant=variant, channels=4, **FEW)
    for links in range(3):
        key = space_.check((0, 1, 1, links, 0, 0, 0))
        (cell,) = grid.cells(key)
        subnet = network.subnet(key)
        if variant == "dense":
            convolutions = [module for module in subnet.modules() if isinstance(module, nn.Conv2d)]
            assert len(convolutions) == 1 + cell.layers + cell.links // cell.width
        else:
            identities = [module for module in subnet.modules() if isinstance(module, nn.Identity)]
            assert cell.links // cell.width == {0: 0, 1: 3, 2: 5}[links] <= len(identities)


def test_a_dense_layer_is_the_convolution_of_the_concatenation() -> None:
    network = seeded(
        supernet, 0, in_channels=3, classes=5, resolution=8, channels=4, counts=(1,), depths=(2,), links=(1,)
    )
    subnet = network.subnet((7, 0, 0))
    images_NCHW = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    entry, first, second, link = (module for module in subnet.modules() if isinstance(module, nn.Conv2d))

    def normed(values_NCHW: torch.Tensor) -> torch.Tensor:
        return torch.relu(nn.functional.batch_norm(values_NCHW, None, None, training=True))

    outputs = [normed(entry(images_NCHW))]
    outputs.append(normed(first(outputs[0])))
    joined_NCHW, weight = torch.cat([outputs[1], outputs[0]], 1), torch.cat([second.weight, link.weight], 1)
    last_NCHW = normed(nn.functional.conv2d(joined_NCHW, weight, padding=1))
    (head,) = (module for module in subnet.modules() if isinstance(module, nn.Linear))
    torch.testing.assert_close(subnet.train()(images_NCHW), head(last_NCHW.mean((2, 3))), rtol=1e-4, atol=1e-5)


def test_links_beyond_a_cells_layers_and_cells_beyond_the_last_say_nothing() -> None:
    dense, residual = space(variant="dense", **FEW), space(variant="residual", **FEW)
    assert dense.canonicalise((0, 1, 0, 2, 1, 1, 1)) == (0, 1, 0, 0, 0, 0, 0)
    assert residual.canonicalise((1, 1, 0, 2, 1, 1, 2)) == (1, 1, 0, 1, 1, 1, 2)


def test_notation() -> None:
    few = space(**FEW)
    assert few.print((1, 0, 1, 2, 1, 0, 0)) == "0.5x3+2 1x1+0"
    assert few.print((0, 0, 1, 2, 1, 0, 0)) == "0.5x3+2 | 1x1+0"
    assert few.parse("0.5x3+2") == (0, 0, 1, 2, 0, 0, 0)
    with pytest.raises(UserError, match="expected 1 or 2 cells"):
        few.parse("0.5x3+2 1x1+0 1x1+0")


def test_impossible_settings_are_refused() -> None:
    for settings in ({"depths": (0, 1)}, {"links": (-1,)}, {"multiples": ()}, {"counts": (2, 1)}):
        with pytest.raises(ValueError, match=f"expected positive {next(iter(settings))} in rising order"):
            space(**settings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected a variant of dense, residual, mobile"):
        Grid("wide")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="channels=0"):
        supernet(in_channels=3, classes=4, resolution=8, channels=0)
