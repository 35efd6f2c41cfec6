"""What a training run shows: CSV logs, curves, HTML page of pictures, visdom, TensorBoard."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from training.monitor.curves import Curves
from training.monitor.loss_log import LossLog
from training.monitor.training_page import TrainingPage
from training.monitor.visdom_panels import VisdomPanels
from util.errors import UserError
from util.images.pictures import unit_to_grey

PAGE_PICTURE_WIDTH = 256  # a micro patch of the published size, pixel for pixel
RATE = "learning_rate"
# bf16 may meet a patch that it cannot take, so such a step is left out; more in a row are a fault.
ALLOWED_SKIPS = 10


class TensorBoardLog:
    """Writes scalars and grey pictures into a folder that `tensorboard --logdir` shows.

    Args:
        folder: of the event files.
        step: steps done so far; TensorBoard hides what an earlier part of the run, which died,
            logged beyond it.

    Raises:
        UserError: the package tensorboard is missing.
    """

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(
                "--tensorboard needs the package tensorboard: pip install tensorboard, or take "
                "--display_id 1 for visdom"
            ) from error
        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def scalars(self, step: int, values: Mapping[str, float], group: str) -> None:
        """Add a point to the curve `group`/name of each value."""
        for name, value in values.items():
            self._writer.add_scalar(f"{group}/{name}", value, step)

    def pictures(self, step: int, pictures: Mapping[str, NDArray[np.uint8]]) -> None:
        """Add grey pictures (rows, columns)."""
        for name, picture in pictures.items():
            self._writer.add_image(name, picture, step, dataformats="HW")

    def flush(self) -> None:
        """Bring all to the disk."""
        self._writer.flush()


class TrainingMonitor:
    """Hands losses and pictures on to everything that shows them.

    Args:
        folder: of the experiment; gets loss_log.csv and web/index.html.
        names: of the losses.
        options: the display options.
        step: steps done so far; rows of later ones, left by a run that was cut off or by an
            earlier one, are dropped.
        epochs: epochs done so far, for the scores in the same way.
        scores: names of what a validation finds.
        shows: False in all but one of several processes: losses are watched there, not shown.
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        options: Namespace,
        step: int,
        epochs: int = 0,
        scores: Sequence[str] = (),
        shows: bool = True,
    ) -> None:
        skips = ALLOWED_SKIPS if options.precision == "bf16" else 0
        self.log = LossLog(folder / "loss_log.csv", names, skips, writes=shows)
        self.log.truncate_after(step)
        self._step = step
        self._has_warned = False
        self.validation = LossLog(folder / "validation.csv", scores, writes=shows)
        self.validation.truncate_after(step, epochs)
        self.curves = None
        self.board = None
        if shows:
            self.curves = Curves(folder / "curves.png")
            self.curves.add_file(self.validation.path, scores)
            self.curves.add_file(self.log.path, names)
            if options.tensorboard:
                self.board = TensorBoardLog(folder / "tensorboard", step)
        self.page = None
        if self.curves is not None and not options.no_html:
            self.page = TrainingPage(
                folder / "web", options.name, PAGE_PICTURE_WIDTH, f"../{self.curves.path.name}"
            )
            self.page.truncate_after(step)
        self.panels = VisdomPanels(
            options.display_server,
            options.display_port,
            options.display_env,
            options.display_id if shows else 0,
            options.display_ncols,
        )

    @contextmanager
    def _only_shown(self) -> Iterator[None]:
        """Around curves and TensorBoard: a disk that refuses them must not end the training."""
        try:
            yield
        except (OSError, UserError) as error:
            if not self._has_warned:
                self._has_warned = True
                print(f"warning: {error}; training goes on", file=sys.stderr)

    def record(self, epoch: int, step: int, losses: Mapping[str, torch.Tensor]) -> None:
        """Keep one step's losses; does not wait for the device."""
        self.log.record(epoch, step, losses)
        self._step = step

    def flush(self) -> dict[str, float]:
        """Write the kept losses to the CSV, the curves and TensorBoard; returns their means.

        Raises:
            NonFiniteLossError: one of them is infinite or NaN.
        """
        means = self.log.flush()
        if means and self.curves is not None:
            self.curves.add(self._step, means)
        if means and self.board is not None:
            with self._only_shown():
                self.board.scalars(self._step, means, "losses")
        return means

    def report(self, position: float) -> str:
        """Flush, draw the means at `position` (in epochs), and return them as one short line."""
        means = self.flush()
        # The rate is so much smaller than the losses that their panel would show it as zero.
        losses = {name: value for name, value in means.items() if name != RATE}
        self.panels.plot("losses", position, losses)
        if RATE in means:
            self.panels.plot("learning rate", position, {RATE: means[RATE]})
        # A loss without weight is 0 throughout and would only hide the others.
        return " ".join(f"{name} {value:.3f}" for name, value in losses.items() if value)

    def validated(self, epoch: int, step: int, scores: Mapping[str, float]) -> None:
        """Keep what a validation found."""
        self.validation.record(epoch, step, scores)
        self.validation.flush()
        if self.curves is not None:
            self.curves.add(step, scores)
        self.panels.plot("validation", epoch, scores)
        if self.board is not None:
            with self._only_shown():
                self.board.scalars(step, scores, "validation")

    def show_pictures(self, step: int, pictures: Mapping[str, torch.Tensor]) -> None:
        """Show pictures (rows, columns) in [-1, 1] on the visdom panels and in TensorBoard."""
        if self.panels.display_id == 0 and self.board is None:
            return
        grey = {name: unit_to_grey(picture.numpy()) for name, picture in pictures.items()}
        self.panels.show_images(grey)
        if self.board is not None:
            with self._only_shown():
                self.board.pictures(step, grey)

    def write_page(self, epoch: int, step: int, pictures: Mapping[str, torch.Tensor]) -> None:
        """Draw the curves anew, and add a row of pictures to the HTML page where there are any."""
        self.flush()
        with self._only_shown():
            if self.curves is not None:
                self.curves.draw(at_once=False)
            if self.board is not None:
                self.board.flush()
        if self.page is not None and pictures:
            grey = {name: unit_to_grey(picture.numpy()) for name, picture in pictures.items()}
            self.page.add(epoch, step, grey)
        elif self.page is not None:
            self.page.write()

    def finish(self) -> None:
        """Draw the curves a last time, with all that was logged; the page comes to rest."""
        self.flush()
        if self.curves is not None:
            with self._only_shown():
                self.curves.draw()
        if self.page is not None:
            self.page.write(finished=True)
