"""Local search with restarts over a uniformly trained supernet: White et al., UAI 2021."""

from raynas.method import Method

METHOD = Method(training_rule="uniform", strategy="local_search")
