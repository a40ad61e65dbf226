"""Methods: named systems of the literature, each a training rule x a strategy x a derivation; one method a file."""
