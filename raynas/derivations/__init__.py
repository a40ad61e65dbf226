"""Derivations: how a trained supernet that learnt a distribution becomes candidates; one derivation a file."""
