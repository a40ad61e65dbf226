"""PNAS: cells that grow by a block at a time, the best by a surrogate's prediction: Liu et al., ECCV 2018."""

from raynas.method import Method

METHOD = Method(training_rule="uniform", strategy="progressive", space_settings={"growing": True})
