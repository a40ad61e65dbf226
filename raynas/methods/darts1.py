"""DARTS, first order: a mixture of all choices, from which the strongest are derived: Liu et al., ICLR 2019."""

from raynas.method import Method

METHOD = Method(training_rule="darts1", strategy="derivation_sampling")
