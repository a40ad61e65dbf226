"""NetAdaptV2: ordered dropout, then multi-layer coordinate descent of score and cost: Yang et al., CVPR 2021."""

from raynas.method import Method

METHOD = Method(training_rule="ordered_dropout", strategy="coordinate_descent", objectives=("score", "cost"))
