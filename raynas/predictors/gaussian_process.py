"""Gaussian process: near architectures have near values, and the data say how near and how noisy."""

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.preprocessing import StandardScaler

from raynas.spacing import evenly

MOST = 500
"""Of what was measured: a fit takes the cube of it."""


def gaussian_process(
    known_NF: NDArray[np.float64], ranks_N: NDArray[np.float64], asked_AF: NDArray[np.float64], *, seed: int
) -> NDArray[np.float64]:
    """Each asked row's value, shape (A,); of more than `MOST` rows these are known, at equal distances.

    Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, chapter 2: a squared exponential of the
    standardised features and noise, whose three parameters are those of largest likelihood (section 5.4.1).
    """
    kept = evenly(len(ranks_N), MOST)
    scale = StandardScaler().fit(known_NF[kept])
    length = np.sqrt(known_NF.shape[1])  # two architectures are about so far apart
    kernel = ConstantKernel() * RBF(length, (0.1 * length, 10 * length)) + WhiteKernel(0.3, (1e-3, 1e1))
    process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a bound that is reached is the prior's say, no fault
        process.fit(scale.transform(known_NF[kept]), ranks_N[kept])
    return np.asarray(process.predict(scale.transform(asked_AF)), dtype=np.float64)
