"""Aggregators: one ranking made of several; one rule a file."""
