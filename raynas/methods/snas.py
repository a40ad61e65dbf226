"""SNAS: a distribution over choices, learnt with the weights by samples that harden: Xie et al., ICLR 2019."""

from raynas.method import Method

METHOD = Method(training_rule="snas", strategy="distribution_sampling", derivation="mode")
