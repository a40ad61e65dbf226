"""FairNAS: strict fairness, then NSGA-II of the score, MACs and parameters: Chu et al., ICCV 2021.

Whether the paper wants few parameters or many is not in the sources we reached; here it is few, as of MACs.
"""

from raynas.method import Method

METHOD = Method(training_rule="fair", strategy="nsga2", objectives=("score", "macs", "parameters"))
