"""DARTS, second order: a mixture of all choices, from which the strongest are derived: Liu et al., ICLR 2019."""

from raynas.method import Method

METHOD = Method(training_rule="darts2", strategy="derivation_sampling")
