"""Strategies: which architectures to evaluate next, by ask and tell; one strategy a file."""
