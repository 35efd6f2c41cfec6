"""Command-line options of training and testing; standard library only, so that --help is fast."""

from options.test_options import TestOptions
from options.train_options import TrainOptions

__all__ = ["TestOptions", "TrainOptions"]
