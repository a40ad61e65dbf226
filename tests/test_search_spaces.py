"""What every search space must do; spaces are found by their file names."""

import importlib
from collections.abc import Callable
from types import ModuleType

import pytest

from raynas.members import family
from raynas.space import SearchSpace
from raynas.testing import SPACE_CHECKS, BuildSupernet


@pytest.fixture(params=family("search_spaces"), scope="module")
def space_file(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(f"search_spaces.{request.param}")


@pytest.mark.parametrize("check", SPACE_CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_space(check: Callable[[SearchSpace, BuildSupernet], None], space_file: ModuleType) -> None:
    check(space_file.SPACE, space_file.supernet)


def test_space_is_called_like_its_file(space_file: ModuleType) -> None:
    assert f"search_spaces.{space_file.SPACE.name}" == space_file.__name__
