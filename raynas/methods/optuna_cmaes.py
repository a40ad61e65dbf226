"""The CMA-ES of Optuna over a uniformly trained supernet: Hansen and Ostermeier, 2001."""

from raynas.method import Method

METHOD = Method(training_rule="uniform", strategy="optuna_cmaes")
