"""SPOS: one uniformly drawn path a step, then evolution with the inherited weights: Guo et al., ECCV 2020."""

from raynas.method import Method

METHOD = Method(training_rule="uniform", strategy="spos_evolution")
