"""The Gaussian process of Optuna over a uniformly trained supernet: Ament et al., NeurIPS 2023."""

from raynas.method import Method

METHOD = Method(training_rule="uniform", strategy="optuna_gp")
