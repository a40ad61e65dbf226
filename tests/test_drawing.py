from __future__ import annotations

import itertools
import re
from xml.etree import ElementTree

import pytest

from raynas.drawing import draw, palette
from raynas.space import ChoiceBlock, Connection, SearchSpace
from tests.example_run import OPERATIONS, drawing

SVG = "{http://www.w3.org/2000/svg}"
DARTS = (
    Connection("c_{k-2}", "0", "sep_conv_3x3"),
    Connection("c_{k-1}", "0", "sep_conv_3x3"),
    Connection("c_{k-2}", "1", "sep_conv_5x5"),
    Connection("c_{k-1}", "1", "max_pool_3x3"),
    Connection("c_{k-1}", "2", "skip_connect"),
    Connection("0", "2", "dil_conv_3x3"),
    Connection("0", "3", "skip_connect"),
    Connection("2", "3", "dil_conv_5x5"),
    *(Connection(str(node), "c_{k}", "") for node in range(4)),
)


def chain(operations):
    blocks = tuple(ChoiceBlock(f"layer {index}", (name,)) for index, name in enumerate(operations))
    return SearchSpace("chain", blocks).connections((0,) * len(operations))


def texts(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def boxes(svg):
    """Left, top, right and bottom of every box with a text, each once."""
    found = {
        tuple(float(element.get(key)) for key in ("x", "y", "width", "height"))
        for element in ElementTree.fromstring(svg).iter(f"{SVG}rect")
    }
    return [(x, y, x + width, y + height) for x, y, width, height in found]


@pytest.mark.parametrize(
    "connections",
    [drawing((3, 2, 1, 4, 3, 2)), drawing((0, 1, 0, 3, 2, 0)), DARTS, chain(["MB6_K5"] * 8), chain(["conv"] * 37)],
    ids=["cell", "sparse cell", "darts cell", "chain", "long chain"],
)
def test_labels_and_nodes_do_not_overlap_and_lie_within_the_picture(connections):
    svg = draw(connections)
    width, height = (float(ElementTree.fromstring(svg).get("viewBox").split()[place]) for place in (2, 3))
    for box in boxes(svg):
        assert box[0] >= 0 and box[1] >= 0 and box[2] <= width and box[3] <= height
    for one, other in itertools.combinations(boxes(svg), 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def test_none_is_not_drawn_and_everything_else_is_labelled():
    architecture = (0, 1, 2, 3, 4, 0)
    drawn = [text for text in texts(draw(drawing(architecture))) if text in OPERATIONS]
    assert sorted(drawn) == sorted(OPERATIONS[choice] for choice in architecture if choice)


def test_what_lies_on_no_way_to_the_output_is_faint():
    # node 1 has no input; of its two arrows and itself nothing reaches the output from the input
    root = ElementTree.fromstring(draw(drawing((0, 3, 2, 0, 4, 3))))
    faint = [text.text for group in root.iter(f"{SVG}g") if group.get("opacity") for text in group.iter(f"{SVG}text")]
    assert sorted(faint) == ["1", "avg_pool_3x3", "nor_conv_1x1"]


def test_a_chain_shows_its_operations_in_order():
    operations = [f"op{index}" for index in range(23)]
    assert [text for text in texts(draw(chain(operations))) if text.startswith("op")] == operations


def test_names_cannot_leave_the_drawing_as_markup():
    nasty = "<script>alert('&')</script>"
    svg = draw([Connection(nasty, "<b>", nasty)], title=f'"{nasty}')
    assert "<script" not in svg and "<b>" not in svg
    assert texts(svg).count(nasty) == 1  # the operation; a chain's own ends are called input and output
    assert nasty in texts(draw([Connection(nasty, "out", "conv"), Connection(nasty, "out", "pool")]))


def test_an_operation_has_one_colour_in_every_drawing():
    colours = palette(OPERATIONS)
    assert len(set(colours.values())) == len(colours) == 3  # none and skip_connect compute nothing
    for architecture in ((4, 3, 2, 1, 0, 4), (2, 2, 2, 3, 3, 4)):
        svg = draw(drawing(architecture), colours)
        for operation, colour in colours.items():
            has = OPERATIONS.index(operation) in architecture
            assert (f'stroke="{colour}"' in svg) == has, operation


def test_a_circle_of_connections_is_drawn_all_the_same():
    assert set("ab") <= set(texts(draw([Connection("a", "b", "x"), Connection("b", "a", "y")])))


def test_the_drawing_takes_its_colours_from_the_page():
    assert set(re.findall(r"var\(--(\w+)", draw(drawing((3,) * 6)))) == {"card", "ink"}
