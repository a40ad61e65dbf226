"""The tree-structured Parzen estimator of Optuna over a uniformly trained supernet: Bergstra et al., 2011."""

from raynas.method import Method

METHOD = Method(training_rule="uniform", strategy="optuna_tpe")
