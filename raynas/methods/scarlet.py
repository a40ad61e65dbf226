"""SCARLET-NAS: FairNAS with a linear map learnt on every skip, so that depth is searched: Chu et al., ICCVW 2021."""

from raynas.method import Method

METHOD = Method(
    training_rule="fair",
    strategy="nsga2",
    objectives=("score", "macs", "parameters"),
    space_settings={"stabiliser": True},
)
