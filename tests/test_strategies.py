"""Every strategy, by its file: the checks that a user's own strategy must pass too."""

import pytest

from raynas.members import family, load_member
from raynas.testing import STRATEGY_CHECKS


@pytest.mark.parametrize("name", family("raynas.strategies"))
@pytest.mark.parametrize("check", STRATEGY_CHECKS, ids=lambda check: check.__name__)
def test_strategy(check, name):
    check(load_member("raynas.strategies", name))
