from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from raynas.costs.macs import macs
from raynas.costs.parameters import parameters
from search_spaces.nats_size import SIZES, SPACE, from_string, supernet, to_string

TABLE = Path(__file__).parents[1].parent / "shared" / "data" / "nats_size_cifar10.parquet"


def test_costs_equal_the_published_table_at_full_size() -> None:
    if not TABLE.exists():
        pytest.skip(f"{TABLE} is absent")
    table = pq.read_table(TABLE, columns=["arch", "params", "flops"]).to_pylist()
    assert len(table) == SPACE.size == 32_768
    network = supernet(in_channels=3, classes=10, resolution=32)
    count_parameters, count_macs = parameters(network, (3, 32, 32)), macs(network, (3, 32, 32))
    for row in np.random.default_rng(0).choice(len(table), 60, replace=False):
        architecture = from_string(table[row]["arch"])
        assert to_string(architecture) == table[row]["arch"]
        assert count_parameters(architecture) == table[row]["params"]
        assert count_macs(architecture) + 10 == table[row]["flops"]  # the table adds the linear layer's bias


def test_a_skip_connection_is_an_identity_where_widths_are_equal() -> None:
    network = supernet(in_channels=3, classes=10, resolution=8)
    count = parameters(network, (3, 8, 8))
    for choice, size in enumerate(SIZES):
        equal = count((0, choice, choice, 0, 0))
        skip = network.subnet((0, choice, choice, 0, 0)).network.layers[2].skip  # type: ignore[index,union-attr]
        assert not list(skip.parameters()) and equal > size


def test_weights_of_one_image_each_are_the_sliced_path() -> None:
    network = supernet(in_channels=3, classes=10, resolution=8, width_multiple=0.25)
    images_NCHW = torch.randn(5, 3, 8, 8)
    for architecture in ((0, 3, 3, 7, 1), (7, 0, 5, 5, 5)):
        each = [torch.nn.functional.one_hot(torch.tensor([choice] * 5), 8).float() for choice in architecture]
        torch.testing.assert_close(network(images_NCHW, each), network(images_NCHW, architecture))
