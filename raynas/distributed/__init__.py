"""Everything that runs on Ray: shards, the evaluator pool, the population, the selector, retraining."""
