"""The training page: curves, and pictures of every epoch, newest first, in one HTML file."""

from __future__ import annotations

import io
import json
import re
import sys
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from dominate import tags
from numpy.typing import NDArray
from PIL import Image

from util.errors import UserError
from util.files import atomic_path, write_json, write_text
from util.pages.page_parts import new_page, text_of

REFRESH_SECONDS = 60  # a browser reads the page anew so often while the run goes on
STYLE = """
section { border-top: 1px solid #ccc; padding: 0.5em 0;
          content-visibility: auto; contain-intrinsic-size: auto 22em; }
.row { display: flex; flex-wrap: wrap; gap: 0.8em; }
figure { margin: 0; }
figcaption { font-size: 0.85em; }
figure img { image-rendering: pixelated; background: #eee; max-width: none; }
"""
NEW_ROW = "real"  # a picture whose label begins so starts the row of its direction


PICTURES = (
    "A is clinical CT, B micro-CT. fake_B = G_A(real_A) is super-resolved, rec_A = G_B(fake_B) is "
    "shrunk again; fake_A = G_B(real_B) is shrunk, rec_B = G_A(fake_A) super-resolved again. "
    "scanned_B is real_B as a scanner model sees it, restored_B = G_A(scanned_B), textured_B a "
    "draw of its texture. All pictures of a row show the same field of view."
)


class TrainingPage:
    """`folder/index.html` with its pictures in `folder/images`; opens without a server.

    While the run goes on, a browser that shows the page reads it anew every minute.

    What the page shows is kept in `folder/rows.json`, so that a resumed run goes on with it.
    """

    def __init__(
        self, folder: str | Path, title: str, image_width: int, curves: str | None = None
    ) -> None:
        """Open the page in `folder`, with the rows of an earlier part of the run.

        Args:
            folder: made with the first picture.
            title: heading of the page.
            image_width: pixels at which every picture is shown, whatever its own size: all show
                the same field of view.
            curves: address of the picture of curves, as seen from `folder`; None for none.

        Raises:
            UserError: `rows.json` is there and cannot be read.
        """
        self.folder = Path(folder)
        self.title = title
        self.image_width = image_width
        self.curves = curves
        self._refreshes = True
        self._warned = False
        self._rows = _read_rows(self.folder / "rows.json")

    def truncate_after(self, iterations: int) -> None:
        """Forget rows past `iterations`, left by a run that was cut off or by an earlier one."""
        self._rows = [row for row in self._rows if row["iterations"] <= iterations]

    def add(self, epoch: int, iterations: int, images: Mapping[str, NDArray[np.uint8]]) -> None:
        """Save pictures and rewrite the page.

        Rows from this epoch and iteration on, left by a run that was cut off after its last
        checkpoint or by an earlier run in the same folder, make way for the new one. A picture
        that cannot be written (a full disk) costs one line on standard error, not the training.

        Args:
            epoch: from 1.
            iterations: number of images seen, or any other count that grows.
            images: title -> (rows, columns) uint8 grey values, shown in this order.
        """
        now = (epoch, iterations)
        rows = [row for row in self._rows if (row["epoch"], row["iterations"]) < now]
        entries: list[dict[str, Any]] = []
        for label, image in images.items():
            words = re.sub(r"[^A-Za-z0-9]+", "_", label).strip("_")
            name = f"epoch{epoch:04d}_{iterations:09d}_{len(entries)}_{words}.png"
            height = max(1, round(self.image_width * image.shape[0] / image.shape[1]))
            entries.append({"label": label, "file": f"images/{name}", "height": height})
        self._rows = [*rows, {"epoch": epoch, "iterations": iterations, "images": entries}]
        try:
            for entry, image in zip(entries, images.values(), strict=True):
                _save_png(self.folder / entry["file"], image)
            write_json(self.folder / "rows.json", {"rows": self._rows})
        except UserError as error:
            self._warn(error)
        self.write()

    def write(self, finished: bool = False) -> None:
        """Write the page with what there is, such as new curves.

        Args:
            finished: nothing comes any more, so that browsers need not look again.
        """
        self._refreshes = not finished
        try:
            write_text(self.folder / "index.html", self._html())
        except UserError as error:
            self._warn(error)

    def _warn(self, error: UserError) -> None:
        if not self._warned:
            print(f"training page: {error} (training goes on)", file=sys.stderr)
        self._warned = True

    def _html(self) -> str:
        page = new_page(self.title, STYLE)
        if self._refreshes:
            page.head.add(tags.meta(http_equiv="refresh", content=str(REFRESH_SECONDS)))
        if self.curves is not None:
            # The number makes a browser load the picture anew when there is more to see.
            source = f"{self.curves}?{_checksum(self.folder / self.curves)}"
            page.body.add(tags.a(tags.img(src=source, alt="curves"), href=self.curves))
            page.body.add(tags.p(PICTURES, cls="note"))
        for row in reversed(self._rows):
            section = tags.section(
                tags.h2(f"epoch {row['epoch']}, iteration {row['iterations']:,}")
            )
            figures = section.add(tags.div(cls="row"))
            for number, entry in enumerate(row["images"]):
                if number and entry["label"].startswith(NEW_ROW):
                    figures = section.add(tags.div(cls="row"))
                figures.add(self._figure(entry))
            page.body.add(section)
        return text_of(page)

    def _figure(self, entry: Mapping[str, Any]) -> tags.figure:
        # Width and height let a browser lay the page out before it has loaded any picture.
        picture = tags.img(
            src=entry["file"],
            alt=entry["label"],
            width=self.image_width,
            height=entry["height"],
            loading="lazy",
        )
        return tags.figure(tags.a(picture, href=entry["file"]), tags.figcaption(entry["label"]))


def _checksum(path: Path) -> int:
    """Of a file's content; 0 where there is none yet."""
    try:
        return zlib.crc32(path.read_bytes())
    except OSError:
        return 0


def _save_png(path: Path, image: NDArray[np.uint8]) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image, dtype=np.uint8)).save(buffer, format="PNG")
    with atomic_path(path) as partial:
        partial.write_bytes(buffer.getvalue())


def _read_rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        for row in rows:
            epoch, iterations, images = row["epoch"], row["iterations"], row["images"]
            if not isinstance(epoch, int) or not isinstance(iterations, int):
                raise TypeError(f"row of epoch {epoch!r}, iteration {iterations!r}")
            for entry in images:
                _ = entry["label"], entry["file"], entry["height"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        # Nothing shown to the user may end training: the page begins anew, the old rows are kept.
        aside = path.with_name(path.name + ".damaged")
        with suppress(OSError):
            path.replace(aside)
        print(
            f"the training page's {path} cannot be read ({error!r}): the page begins anew, the "
            f"old file is kept as {aside.name}",
            file=sys.stderr,
        )
        return []
    return list(rows)
