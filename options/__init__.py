"""Command-line options of training and testing; standard library only, so that --help is fast."""

from options.python_version import refuse_other_pythons

refuse_other_pythons()

from options.test_options import TestOptions  # noqa: E402 - a Python that is too old stops above
from options.train_options import TrainOptions  # noqa: E402

__all__ = ["TestOptions", "TrainOptions"]
