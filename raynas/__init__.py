"""Weight-sharing neural architecture search on Ray that measures its own optimisation gap."""

__version__ = "0.1.0"
