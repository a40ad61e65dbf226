"""Predictors: what is learnt from the scores of some architectures about others; one predictor a file.

A predictor is `NAME(known_NF, ranks_N, asked_AF, *, seed)`: a function of the features (raynas.features) and the ranks,
from 0 (worst) to 1 (best), of what was measured, of the features of what is asked, and of a seed; it gives a value for
each of these, higher for better.
"""
