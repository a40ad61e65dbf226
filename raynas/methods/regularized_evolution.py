"""Aging evolution over a uniformly trained supernet: Real et al., AAAI 2019 (arXiv:1802.01548)."""

from raynas.method import Method

METHOD = Method(training_rule="uniform", strategy="regularized_evolution")
