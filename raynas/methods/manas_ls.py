"""MANAS-LS: least squares over stacks of validation losses tells each block's agent its ranks: Lopes et al., 2024."""

from raynas.method import Method

METHOD = Method(training_rule="manas_ls", strategy="distribution_sampling", derivation="mode")
