"""--engine fused: convolutions with norm, activation and padding in one pass, for training."""
