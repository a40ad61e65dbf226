"""DARTS with selection by perturbation, not by the size of alpha: Wang et al., ICLR 2021."""

from raynas.method import Method

METHOD = Method(training_rule="darts_pt", strategy="derivation_sampling", derivation="mode")
