"""FLASH: NN-Degree and costs fitted to 25 networks, then SHGO of both: Li et al., ACM TECS 2021.

The paper trains the 25 networks; here a supernet's paths stand in for them.
"""

from raynas.method import Method

METHOD = Method(training_rule="uniform", strategy="shgo", objectives=("error", "cost"))
