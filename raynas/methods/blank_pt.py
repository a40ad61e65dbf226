"""Selection by perturbation from a mixture whose weights are never learnt: Wang et al., ICLR 2021."""

from raynas.method import Method

METHOD = Method(training_rule="blank_pt", strategy="derivation_sampling", derivation="mode")
