"""Loss curves and pictures on a visdom server, which may be missing, slow or dead."""

from __future__ import annotations

import logging
import socket
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, cast
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from util.errors import UserError

CONNECT_SECONDS = 1.0
ANSWER_SECONDS = 2.0
RETRY_SECONDS = 60.0
# Whole curves are sent each time, so that a server started late or anew shows them all.
MOST_POINTS = 1000
# Windows of the curves, counted from --display_id; pictures take those between.
CURVES = {"losses": 0, "validation": 10, "learning rate": 11}
SMALLEST_WINDOW = 256  # pixels; an input patch of 32 would show as a dot


class VisdomPanels:
    """Panels of one training run. Nothing that goes wrong here raises or waits for long.

    Where the package or the server is missing, or the server hangs or dies, one line says so
    (once), and the next attempt comes at the earliest 60 s later. A dead server costs at most 1 s
    to connect or 2 s without an answer; only the look-up of a host's name is not bounded here.
    """

    def __init__(self, server: str, port: int, env: str, display_id: int, ncols: int) -> None:
        """Describe the panels; nothing is sent yet.

        Args:
            server: host, as "localhost" or "http://localhost".
            port: of the server, 8097 for `python -m visdom.server`.
            env: visdom environment that the panels go to.
            display_id: window number of the curves; pictures take the next ones. 0 or below turns
                the panels off.
            ncols: pictures in a row of one window; 0 gives each picture a window of its own.

        Raises:
            UserError: `server` is not a host.
        """
        address = urlsplit(server if "://" in server else f"http://{server}")
        host = address.netloc.rpartition("@")[2]
        if not address.hostname or ":" in host.rpartition("]")[2]:
            raise UserError(
                f'visdom server is "{server}", expected a host such as http://localhost: '
                "give the port by its own option"
            )
        self.server = f"{address.scheme}://{address.netloc}"
        self.port = port
        self.env = env
        self.display_id = display_id
        self.ncols = ncols
        self._host = address.hostname
        self._client: Any = None
        self._retry_at = 0.0 if display_id > 0 else float("inf")
        self._warned = False
        self._points: dict[str, list[tuple[float, dict[str, float]]]] = {}

    def plot(self, group: str, position: float, values: Mapping[str, float]) -> None:
        """Add one point to each curve of a window.

        Args:
            group: one of `CURVES`.
            position: place on the x axis, in epochs (2.5: half of the third is done).
            values: by name; a name missing at some position leaves a gap.
        """
        if self.display_id <= 0 or not values:
            return
        points = self._points.setdefault(group, [])
        points.append((float(position), {name: float(value) for name, value in values.items()}))
        if len(points) > MOST_POINTS:
            # Every other point goes: the oldest part of a long run gets the coarsest curve.
            points[:] = points[::2]
        self._send(self._send_curves)

    def show_images(self, images: Mapping[str, NDArray[np.uint8]], caption: str = "") -> None:
        """Show pictures in place of the last ones.

        Args:
            images: title -> (rows, columns) uint8 grey values, of any sizes: the smaller ones of
                a window are enlarged by repeated pixels.
            caption: said with each window, such as the epoch.
        """
        if images:
            self._send(lambda client: self._send_images(client, images, caption))

    def _send(self, action: Callable[[Any], None]) -> None:
        if time.monotonic() < self._retry_at:
            return
        try:
            if self._client is None:
                self._client = self._connect()
            action(self._client)
        except ImportError as error:
            self._retry_at = float("inf")
            self._warn(f"{error}; install it with pip install visdom to see panels")
        except Exception as error:  # noqa: BLE001 - nothing shown to the user may end training
            self._client = None
            self._retry_at = time.monotonic() + RETRY_SECONDS
            reason = " ".join(str(error).split()) or type(error).__name__
            self._warn(
                f"no answer from {self.server}:{self.port} ({reason[:200]}); start one with "
                f"python -m visdom.server -port {self.port}"
            )

    def _warn(self, text: str) -> None:
        if not self._warned:
            print(f"visdom: {text} (training goes on without it)", file=sys.stderr)
        self._warned = True

    def _connect(self) -> Any:
        # First, because visdom itself would wait for minutes on an address that swallows packets.
        socket.create_connection((self._host, self.port), timeout=CONNECT_SECONDS).close()
        from visdom import Visdom

        class PromptVisdom(Visdom):
            """A client whose requests come back in time and fail with an exception."""

            def _handle_post(self, url: str, data: Any = None) -> str:
                session = cast(Any, self).session  # visdom's stubs leave it out
                # The address was reached directly; a proxy named in the environment could not.
                session.trust_env = False
                timeout = (CONNECT_SECONDS, ANSWER_SECONDS)
                answer = session.post(url, data={} if data is None else data, timeout=timeout)
                answer.raise_for_status()
                return str(answer.text)

        logging.getLogger("visdom").setLevel(logging.CRITICAL)
        # With raise_exceptions=False visdom prints a traceback at every failure.
        return PromptVisdom(
            server=self.server,
            port=self.port,
            env=self.env,
            raise_exceptions=True,
            use_incoming_socket=False,
        )

    def _send_curves(self, client: Any) -> None:
        for group, points in self._points.items():
            names = list(dict.fromkeys(name for _, values in points for name in values))
            positions = np.array([[position] * len(names) for position, _ in points])
            client.line(
                X=positions,
                Y=np.array([[values.get(name, np.nan) for name in names] for _, values in points]),
                win=str(self.display_id + CURVES[group]),
                opts={"title": f"{self.env} {group}", "legend": names, "xlabel": "epoch"},
            )

    def _send_images(
        self, client: Any, images: Mapping[str, NDArray[np.uint8]], caption: str
    ) -> None:
        if self.ncols <= 0:
            for number, (title, image) in enumerate(images.items(), start=1):
                factor = max(1, SMALLEST_WINDOW // max(image.shape))
                larger = _fitted(image, image.shape[0] * factor, image.shape[1] * factor)
                client.image(
                    larger[None],
                    win=str(self.display_id + number),
                    opts={"title": title, "caption": caption},
                )
            return
        rows = max(image.shape[0] for image in images.values())
        columns = max(image.shape[1] for image in images.values())
        stack = np.stack([_fitted(image, rows, columns)[None] for image in images.values()])
        client.images(
            stack,
            nrow=self.ncols,
            padding=2,
            win=str(self.display_id + 1),
            opts={"title": ", ".join(images), "caption": caption},
        )


def _fitted(image: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.uint8]:
    """`image` enlarged by whole pixels as far as it fits, then padded with black."""
    factor = min(rows // image.shape[0], columns // image.shape[1])
    larger = np.asarray(image, dtype=np.uint8).repeat(factor, axis=0).repeat(factor, axis=1)
    return np.pad(larger, ((0, rows - larger.shape[0]), (0, columns - larger.shape[1])))
