"""The NSGA-II of Optuna, of the score against a cost, over a uniformly trained supernet: Deb et al., 2002."""

from raynas.method import Method

METHOD = Method(training_rule="uniform", strategy="optuna_nsga2", objectives=("score", "cost"))
