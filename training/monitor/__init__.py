"""What a training run shows: loss log, curves, page, and panels elsewhere."""
