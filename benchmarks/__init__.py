"""Measurements too slow for the tests; their figures stand in docs/results.md."""
