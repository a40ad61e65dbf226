"""Gradient boosting: a sum of small trees, each fitted to what the ones before it have left."""

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import GradientBoostingRegressor

TREES = 200


def gradient_boosting(
    known_NF: NDArray[np.float64], ranks_N: NDArray[np.float64], asked_AF: NDArray[np.float64], *, seed: int
) -> NDArray[np.float64]:
    """Each asked row's value, shape (A,).

    Friedman, "Stochastic Gradient Boosting", Computational Statistics & Data Analysis 38, 2002: each tree sees half of
    what was measured. That a split looks at a third of the features is our choice, as are the depth and the rate.
    """
    boosting = GradientBoostingRegressor(
        n_estimators=TREES, learning_rate=0.05, max_depth=3, subsample=0.5, max_features=1 / 3, random_state=seed
    )
    return np.asarray(boosting.fit(known_NF, ranks_N).predict(asked_AF), dtype=np.float64)
