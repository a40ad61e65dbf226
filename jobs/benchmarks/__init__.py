"""Benchmarks: each prints ratios measured in one run, on the machine that it runs on."""
