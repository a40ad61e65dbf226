"""Random forest: the mean of many trees, each grown on a resample of what was measured."""

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestRegressor

TREES = 100


def random_forest(
    known_NF: NDArray[np.float64], ranks_N: NDArray[np.float64], asked_AF: NDArray[np.float64], *, seed: int
) -> NDArray[np.float64]:
    """Each asked row's value, shape (A,).

    Breiman, "Random Forests", Machine Learning 45, 2001. A split looks at a third of the features, his choice for
    regression; leaves of one architecture, which would repeat its error, are not grown.
    """
    forest = RandomForestRegressor(TREES, max_features=1 / 3, min_samples_leaf=2, random_state=seed)
    return np.asarray(forest.fit(known_NF, ranks_N).predict(asked_AF), dtype=np.float64)
