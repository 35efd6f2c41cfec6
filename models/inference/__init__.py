"""Inference with the SR generator: a slice of any size, in bounded memory, exact over its bands."""
