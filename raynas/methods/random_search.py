"""Random search over a uniformly trained supernet: the baseline that every other method has to beat."""

from raynas.method import Method

METHOD = Method(training_rule="uniform", strategy="random_search")
