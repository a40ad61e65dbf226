"""Costs: what running a subnet takes, predicted from its choices; one cost a file."""
