"""Training rules: what one optimisation step of a supernet does, and with which paths; one rule a file."""
