"""MANAS: a bandit per choice block learns what to draw from the joint validation loss: Lopes et al., 2024."""

from raynas.method import Method

METHOD = Method(training_rule="manas", strategy="distribution_sampling", derivation="mode")
