from math import prod

import pytest
import torch
from torch import nn
from torch.nn import functional

from raynas.costs.macs import macs
from raynas.errors import UserError
from raynas.space import ChoiceBlock
from raynas.supernet import Supernet, seeded
from search_spaces.vit_elastic import SPACE, Hidden, Width, space, supernet

TINY = {"embeddings": (6, 8), "depths": (1, 2), "heads": (1, 2), "ratios": (1.5, 2.0)}


@pytest.fixture
def network() -> Supernet:
    return seeded(supernet, 0, in_channels=3, classes=5, resolution=8, head_features=4, **TINY)


def test_ranges_are_those_of_autoformer_tiny() -> None:
    assert SPACE.blocks[0] == ChoiceBlock("embedding", ("192", "216", "240"))
    assert SPACE.blocks[1] == ChoiceBlock("depth", ("12", "13", "14"))
    assert SPACE.size == 3 * 3 * (2 * 2) ** 14
    networks = 3 * sum((2 * 2) ** depth for depth in (12, 13, 14))
    tiny = space(**TINY)
    keys = [()]
    for block in tiny.blocks:
        keys = [(*key, choice) for key in keys for choice in range(len(block.choices))]
    assert len({tiny.canonicalise(key) for key in keys}) == 2 * (4 + 4**2)  # and so, of SPACE, 3 * (4^12 + 4^13 + 4^14)
    assert networks < SPACE.size == prod(len(block.choices) for block in SPACE.blocks)


def test_largest_network_has_as_many_parameters_as_counted_by_hand() -> None:
    """240 wide, 14 layers of 4 heads of 64 and ratio 4; AutoFormer-T has 5.9 million at 224 pixels, patch 16."""
    with torch.device("meta"):
        network = supernet(in_channels=3, classes=1000, resolution=224, patch=16)
        subnet = network.subnet(tuple(len(block.choices) - 1 for block in SPACE.blocks))
    attention = 2 * 240 + (240 + 1) * 3 * 256 + (256 + 1) * 240
    mlp = 2 * 240 + (240 + 1) * 960 + (960 + 1) * 240
    ends = (3 * 16**2 + 1) * 240 + 14**2 * 240 + 2 * 240 + (240 + 1) * 1000
    assert sum(parameter.numel() for parameter in subnet.parameters()) == 14 * (attention + mlp) + ends


def test_macs_include_the_products_of_attention(network: Supernet) -> None:
    predict = macs(network, (3, 8, 8))
    tokens, embedding, features, hidden = 4, 8, 2 * 4, 16
    attention = tokens * embedding * 3 * features + 2 * tokens * tokens * features + tokens * features * embedding
    layer = attention + 2 * tokens * embedding * hidden
    assert predict((1, 0, 1, 1, 0, 0)) == tokens * 48 * embedding + layer + embedding * 5
    assert predict((1, 1, 1, 1, 1, 1)) == tokens * 48 * embedding + 2 * layer + embedding * 5


def test_a_subnet_is_made_of_plain_layers_and_computes_what_a_textbook_transformer_does(network: Supernet) -> None:
    subnet = network.subnet((0, 0, 1, 0, 1, 1))
    linears = [module for module in subnet.modules() if isinstance(module, nn.Linear)]
    assert [tuple(linear.weight.shape) for linear in linears] == [(6, 48), (24, 6), (6, 8), (9, 6), (6, 9), (5, 6)]
    embed, qkv, out, expand, project, head = linears
    first, second, last = (module for module in subnet.modules() if isinstance(module, nn.LayerNorm))
    positions = next(parameter for name, parameter in subnet.named_parameters() if "positions" in name)
    images_NCHW = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    tokens_NTE = embed(functional.unfold(images_NCHW, 4, stride=4).transpose(1, 2)) + positions
    query, key, value = qkv(first(tokens_NTE)).reshape(2, 4, 2, 3, 4).permute(3, 0, 2, 1, 4)
    weights = (query @ key.transpose(-1, -2) / 4**0.5).softmax(-1)
    tokens_NTE = tokens_NTE + out((weights @ value).transpose(1, 2).reshape(2, 4, 8))
    tokens_NTE = tokens_NTE + project(functional.gelu(expand(second(tokens_NTE))))
    torch.testing.assert_close(subnet(images_NCHW), head(last(tokens_NTE).mean(1)))


def test_heads_of_different_layers_are_chosen_apart(network: Supernet) -> None:
    weights = [tuple(m.weight.shape) for m in network.subnet((0, 1, 0, 0, 1, 0)).modules() if isinstance(m, nn.Linear)]
    assert weights == [(6, 48), (12, 6), (6, 4), (9, 6), (6, 9), (24, 6), (6, 8), (9, 6), (6, 9), (5, 6)]


def test_hidden_channels_with_weights_of_each_image_are_those_of_each_image() -> None:
    hidden = Hidden(Width(0, (4, 6)), 1, (1.0, 1.5))
    embeddings, ratios = torch.eye(2)[[0, 1, 1]], torch.eye(2)[[1, 0, 1]]
    channels, mask_NC = hidden.taken([embeddings, ratios])
    assert channels == 9
    assert mask_NC is not None
    assert mask_NC.sum(1).tolist() == [6, 6, 9]
    channels, mask_C = hidden.taken([1, torch.tensor([0.25, 0.75])])
    assert mask_C is not None
    assert mask_C.tolist() == [1.0] * 6 + [0.75] * 3


def test_half_the_weight_on_a_layer_halves_what_it_changes(network: Supernet) -> None:
    """Of a linear network: without the last norm logits are linear in the tokens."""
    network.norm = nn.Module()
    network.norm.forward = lambda tokens, architecture: tokens  # type: ignore[method-assign]
    images_NCHW = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    without, half, with_it = (
        network(images_NCHW, (1, depth, 0, 0, 1, 1)) for depth in (0, torch.tensor([0.5, 0.5]), 1)
    )
    torch.testing.assert_close(half, (without + with_it) / 2)


def test_notation() -> None:
    tiny = space(**TINY)
    assert tiny.print((1, 1, 0, 0, 1, 1)) == "8: 1x1.5 2x2"
    assert tiny.print((0, 0, 1, 0, 0, 0)) == "6: 2x1.5"
    assert tiny.print((0, 0, 1, 0, 0, 1)) == "6: 2x1.5 | 1x2"
    for text in ("6: 2x1.5 |", "7: 2x1.5", "6: 3x1.5", "6:2x1.5", "6: 2x1.5 | 1x2 1x2", "6: 1x1.5 1x1.5 1x1.5"):
        with pytest.raises(UserError):
            tiny.parse(text)


def test_impossible_settings_are_refused() -> None:
    for settings in ({"depths": ()}, {"depths": (3, 2)}, {"heads": (0, 1)}, {"ratios": (2.0, 2.0)}):
        with pytest.raises(ValueError, match=f"expected {next(iter(settings))} above 0 in rising order"):
            space(**settings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"least product is at least 1, .* but got 192 and 0.005; raise"):
        space(ratios=(0.005, 1.0))
    with pytest.raises(ValueError, match="patch=0"):
        supernet(in_channels=3, classes=4, resolution=8, patch=0)
