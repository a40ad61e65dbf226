"""A Gaussian process and Thompson sampling over a uniformly trained supernet: White et al., BANANAS, of a GP."""

from raynas.method import Method

METHOD = Method(training_rule="uniform", strategy="bayesian_optimisation")
