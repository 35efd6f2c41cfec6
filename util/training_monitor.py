"""What a training run shows: CSV log, HTML page of pictures, visdom panels."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from util.html_page import TrainingPage
from util.loss_log import LossLog
from util.pictures import unit_to_grey
from util.visdom_panels import VisdomPanels

PAGE_PICTURE_WIDTH = 256  # a micro patch of the published size, pixel for pixel
# bf16 may meet a patch that it cannot take, so such a step is left out; more in a row are a fault.
ALLOWED_SKIPS = 10


class TrainingMonitor:
    """Hands losses and pictures on to everything that shows them.

    Args:
        folder: of the experiment; gets loss_log.csv and web/index.html.
        names: of the losses.
        options: the display options.
        step: steps done so far; rows of later ones, left by a run that was cut off or by an
            earlier one, are dropped.
        shows: False in all but one of several processes: losses are watched there, not shown.
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        options: Namespace,
        step: int,
        shows: bool = True,
    ) -> None:
        skips = ALLOWED_SKIPS if options.precision == "bf16" else 0
        self.log = LossLog(folder / "loss_log.csv", names, skips, writes=shows)
        self.log.truncate_after(step)
        self.page = None
        if shows and not options.no_html:
            self.page = TrainingPage(folder / "web", options.name, PAGE_PICTURE_WIDTH)
            self.page.truncate_after(step)
        self.panels = VisdomPanels(
            options.display_server,
            options.display_port,
            options.display_env,
            options.display_id if shows else 0,
            options.display_ncols,
        )

    def record(self, epoch: int, step: int, losses: Mapping[str, torch.Tensor]) -> None:
        """Keep one step's losses; does not wait for the device."""
        self.log.record(epoch, step, losses)

    def flush(self) -> dict[str, float]:
        """Write the kept losses to the CSV and return their means.

        Raises:
            NonFiniteLossError: one of them is infinite or NaN.
        """
        return self.log.flush()

    def report(self, position: float) -> str:
        """Flush, draw the means at `position` (in epochs), and return them as one short line."""
        means = self.flush()
        self.panels.plot_losses(position, means)
        return " ".join(f"{name} {value:.3f}" for name, value in means.items())

    def show_pictures(self, pictures: Mapping[str, torch.Tensor]) -> None:
        """Show pictures (rows, columns) in [-1, 1] on the visdom panels."""
        if self.panels.display_id > 0:
            self.panels.show_images({name: unit_to_grey(p.numpy()) for name, p in pictures.items()})

    def write_page(self, epoch: int, step: int, pictures: Mapping[str, torch.Tensor]) -> None:
        """Add a row of pictures to the HTML page; none where there are no pictures yet."""
        if self.page is not None and pictures:
            grey = {name: unit_to_grey(picture.numpy()) for name, picture in pictures.items()}
            self.page.add(epoch, step, grey)
