"""Entry points for `ray job submit`, their configurations, and the benchmarks."""
