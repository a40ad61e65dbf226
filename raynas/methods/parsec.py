"""PARSEC: a distribution over architectures learnt with the weights, then sampled: Casale et al., 2019."""

from raynas.method import Method

METHOD = Method(training_rule="parsec", strategy="distribution_sampling", derivation="mode")
