"""A Gaussian process and Thompson sampling over mutations of the best: White et al., BANANAS, AAAI 2021, of a GP."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize
from scipy.stats import norm, rankdata

from raynas import seeds
from raynas.architecture import Architecture
from raynas.errors import UserError
from raynas.evaluation import Evaluation
from raynas.space import SearchSpace
from raynas.strategies._unasked import Unasked
from raynas.strategy import measured

HISTORY = 400  # evaluations that the process is fitted to: the better half of them, and the later
STEPS = 25  # of its fit, which goes on from the last
MORE = 0.5  # that a mutation is followed by another
ELSEWHERE = 0.25  # of the candidates are random
JITTER = 1e-5
DISTANCE = 3.0  # prior mean of -log of the correlation between networks that differ in every block
NOISE = 0.05  # prior median of the noise's variance, relative to the signal's
SPREAD_WEIGHT, SPREAD_NOISE = 1.5, 1.0  # standard deviations of the priors' logarithms


class BayesianOptimisation:
    """Asks for the best of candidates in draws from a Gaussian process; minimises the first objective.

    Networks correlate by exp(-sum of the weights of the blocks in which their canonical keys differ). The weights and
    the noise are those of largest posterior density, under log-normal priors that are the same for all spaces; the
    values are normal scores of ranks, so that neither their scale nor hopeless networks matter.
    Each architecture of a batch is the best of `candidates` new ones in a draw of its own (independent Thompson
    sampling, as in BANANAS), so that a batch is spread and nothing awaited need be guessed. The candidates are
    mutations of the `parents` best, and some random ones. The first `startup` evaluations are random.
    """

    def __init__(
        self, space: SearchSpace, *, seed: int, startup: int = 20, parents: int = 10, candidates: int = 200
    ) -> None:
        if startup < 2 or parents < 1 or candidates < 1:
            raise UserError(
                "startup must be at least 2, parents and candidates at least 1, but got "
                f"{startup}, {parents} and {candidates}; raise them."
            )
        self.startup = startup
        self.parents = parents
        self.candidates = candidates
        self._space = space
        self._rng = seeds.generator(seed, "bayesian_optimisation")
        self._unasked = Unasked(space)
        self._history: list[tuple[Architecture, float]] = []  # canonical, in the order told
        self._fitted: NDArray[np.float64] | None = None  # where the last fit ended

    def ask(self, count: int) -> list[Architecture]:
        """Up to `count` new architectures."""
        found: list[Architecture] = []
        if count > 0 and len(self._history) >= self.startup:
            found = [one for one in self._most_promising(count) if self._unasked.claim(one)]
        return [*found, *self._unasked.ask(count - len(found), self._rng)]

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Add what was measured to what the process is fitted to."""
        self._unasked.note(evaluations)
        for one in measured(evaluations):
            self._history.append((self._space.canonicalise(one.architecture), one.objectives[0]))
        if len(self._history) > HISTORY:
            order = np.argsort([value for _, value in self._history], kind="stable")[: HISTORY // 2].tolist()
            kept = sorted({*order, *range(len(self._history) - HISTORY // 2, len(self._history))})
            self._history = [self._history[index] for index in kept]

    def _most_promising(self, count: int) -> list[Architecture]:
        values_A = np.array([value for _, value in self._history])
        best = [self._history[index][0] for index in np.argsort(values_A, kind="stable")[: self.parents].tolist()]
        candidates = self._candidates(best)
        if not candidates:
            return []
        known_AB = np.array([key for key, _ in self._history])
        new_CB = np.array([self._space.canonicalise(key) for key in candidates])
        scores_A = norm.ppf((rankdata(values_A) - 0.5) / len(values_A))
        self._fitted = fit(known_AB, scores_A, self._fitted)
        draws_CD = draw(known_AB, scores_A, new_CB, self._fitted, self._rng.standard_normal((len(candidates), count)))
        chosen: dict[int, None] = {}
        for order in np.argsort(draws_CD, axis=0, kind="stable").T.tolist():
            chosen.update(dict.fromkeys([index for index in order if index not in chosen][:1]))
        return [candidates[index] for index in chosen]

    def _candidates(self, best: Sequence[Architecture]) -> list[Architecture]:
        """New networks, one key each."""
        found: dict[Architecture, Architecture] = {}
        for _ in range(3 * self.candidates if self._space.size > 1 else 0):
            if len(found) == self.candidates:
                break
            if self._rng.random() < ELSEWHERE:
                key = self._space.sample(self._rng)
            else:
                key = self._space.mutate(best[int(self._rng.integers(len(best)))], self._rng)
                while self._rng.random() < MORE:
                    key = self._space.mutate(key, self._rng)
            network = self._space.canonicalise(key)
            if network not in self._unasked.known:
                found.setdefault(network, key)
        return list(found.values())


def fit(
    known_AB: NDArray[np.int64], scores_A: NDArray[np.float64], start: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Logarithms of the blocks' weights and, last, of the noise's share: shape (B + 1,), of largest posterior density.

    The signal's variance is that of largest likelihood given the others (Rasmussen and Williams, 2006, section 5.4.1).
    """
    blocks, count = known_AB.shape[1], len(scores_A)
    differ_AAB = (known_AB[:, None] != known_AB[None]).astype(np.float64)
    centre = np.append(np.full(blocks, math.log(DISTANCE / blocks)), math.log(NOISE))
    spread = np.append(np.full(blocks, SPREAD_WEIGHT), SPREAD_NOISE)

    def loss(at: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights_B, noise = np.exp(at[:-1]), math.exp(at[-1])
        signal_AA = np.exp(-differ_AAB @ weights_B)
        factor = cho_factor(signal_AA + (noise + JITTER) * np.eye(count), lower=True)
        inverse_AA = cho_solve(factor, np.eye(count))
        solved_A = inverse_AA @ scores_A
        variance = max(scores_A @ solved_A / count, JITTER)  # 0 where all values are equal
        value = count / 2 * math.log(variance) + np.log(np.diag(factor[0])).sum()
        slope_AA = inverse_AA - np.outer(solved_A, solved_A) / variance  # twice the derivative by the covariance
        by_weights_B = -weights_B / 2 * np.einsum("ij,ijb->b", slope_AA * signal_AA, differ_AAB)
        off = (at - centre) / spread
        slope = np.append(by_weights_B, noise / 2 * np.trace(slope_AA))
        return float(value + off @ off / 2), slope + off / spread

    begin = centre if start is None else start
    bounds = [(middle - 4 * width, middle + 4 * width) for middle, width in zip(centre, spread, strict=True)]
    ended = minimize(loss, begin, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": STEPS})
    return np.asarray(ended.x.round(3), dtype=np.float64)  # what is asked should not hang on a library's last bits


def draw(
    known_AB: NDArray[np.int64],
    scores_A: NDArray[np.float64],
    new_CB: NDArray[np.int64],
    fitted: NDArray[np.float64],
    normal_CD: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Draws of the process at new keys, given what is known: shape (C, D) like the standard normal numbers used."""
    weights_B, noise = np.exp(fitted[:-1]), math.exp(fitted[-1])

    def correlation(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.exp(-(one[:, None] != other[None]).astype(np.float64) @ weights_B)  # type: ignore[no-any-return]

    factor = cho_factor(correlation(known_AB, known_AB) + (noise + JITTER) * np.eye(len(known_AB)), lower=True)
    solved_A = cho_solve(factor, scores_A)
    between_CA = correlation(new_CB, known_AB)
    told_AC = solve_triangular(factor[0], between_CA.T, lower=True)
    rest_CC = correlation(new_CB, new_CB) - told_AC.T @ told_AC
    root_CC = np.linalg.cholesky(rest_CC + JITTER * np.eye(len(new_CB)))
    deviation = math.sqrt(scores_A @ solved_A / len(scores_A))
    return np.asarray(between_CA @ solved_A)[:, None] + deviation * (root_CC @ normal_CD)
