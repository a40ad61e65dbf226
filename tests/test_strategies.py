"""Every strategy, by its file: the checks that a user's own strategy must pass too."""

from functools import partial

import pytest

from raynas.members import family, load_member
from raynas.testing import STRATEGY_CHECKS

SETTINGS = {"optuna_gp": {"startup": 200}, "progressive": {"beam": 100}, "shgo": {"startup": 200}}
"""What keeps strategies from fitting their models often."""


@pytest.mark.parametrize("name", family("raynas.strategies"))
@pytest.mark.parametrize("check", STRATEGY_CHECKS, ids=lambda check: check.__name__)
def test_strategy(check, name):
    check(partial(load_member("raynas.strategies", name), **SETTINGS.get(name, {})))
