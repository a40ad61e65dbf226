"""Aging evolution over uniformly trained supernets of partitions: Zhao et al., few-shot NAS, ICML 2021."""

from raynas.method import Method

METHOD = Method(training_rule="uniform", strategy="regularized_evolution", partitions=True)
