from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.monitor.visdom_panels import MOST_POINTS, VisdomPanels
from util.errors import UserError

IMAGES = {
    "real_A": np.full((8, 8), 200, dtype=np.uint8),
    "fake_B": np.full((64, 48), 100, dtype=np.uint8),
}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _panels(port: int, ncols: int = 2) -> VisdomPanels:
    return VisdomPanels("http://127.0.0.1", port, "test", 1, ncols)


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A program that accepts connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield listener.getsockname()[1]


@pytest.fixture
def wrong_port() -> Iterator[int]:
    """A web server that is not visdom: every request is answered with 404."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)

        def answer() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(1)
                    try:
                        connection.recv(65536)
                        connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                    except OSError:
                        continue

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def _start_server(port: int, folder: Path) -> subprocess.Popen[bytes]:
    """The real visdom server, without the scripts for browsers that it would download first."""
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from visdom.server.run_server import main; main()",
            *("-port", str(port), "-env_path", str(folder), "-bind_local"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HOME": str(folder)},
    )


def _wait_until_up(server: subprocess.Popen[bytes], port: int) -> None:
    for _ in range(300):
        assert server.poll() is None, "the visdom server ended at its start"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the visdom server did not come up in 30 s")


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.kill()
    server.wait(10)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[int]:
    pytest.importorskip("visdom", reason="visdom is not installed")
    port = _free_port()
    process = _start_server(port, tmp_path)
    try:
        _wait_until_up(process, port)
        yield port
    finally:
        _stop(process)


def _windows(port: int) -> dict[str, Any]:
    """What the server holds, asked of itself and not of the code under test."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/win_data",
        data=json.dumps({"eid": "test", "win": None}).encode(),
        method="POST",
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        return dict(json.loads(answer.read()))


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Servers that were asked, each of which may take seconds to answer, or not to."""
    asked: list[str] = []
    connect = VisdomPanels._connect

    def watched(self: VisdomPanels) -> Any:
        asked.append(self.server)
        return connect(self)

    monkeypatch.setattr(VisdomPanels, "_connect", watched)
    return asked


def test_no_server_costs_one_line_and_one_attempt(
    attempts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    port = _free_port()
    panels = _panels(port)
    for step in range(50):
        panels.plot("losses", step / 50, {"G": 1.0})
        panels.show_images(IMAGES)
    assert len(attempts) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert f"visdom: no answer from http://127.0.0.1:{port}" in shown.err
    assert "training goes on" in shown.err


def test_silent_server_is_given_up_soon(
    silent_port: int, attempts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("visdom", reason="visdom is not installed")
    panels = _panels(silent_port)
    panels.plot("losses", 0.1, {"G": 1.0})
    panels.plot("losses", 0.2, {"G": 1.0})
    assert len(attempts) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1


def test_another_program_on_the_port_is_noticed(
    wrong_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("visdom", reason="visdom is not installed")
    panels = _panels(wrong_port)
    panels.show_images(IMAGES)
    assert "no answer" in capsys.readouterr().err


def test_missing_package_is_told_once(
    silent_port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "visdom", None)
    panels = _panels(silent_port)
    panels.plot("losses", 0.1, {"G": 1.0})
    panels.show_images(IMAGES)
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "pip install visdom" in told


def test_next_attempt_comes_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    attempts: list[float] = []

    def refuse(*_: Any, **__: Any) -> socket.socket:
        attempts.append(now[0])
        raise ConnectionRefusedError("refused")

    monkeypatch.setattr("training.monitor.visdom_panels.time.monotonic", lambda: now[0])
    monkeypatch.setattr("training.monitor.visdom_panels.socket.create_connection", refuse)
    panels = _panels(1)
    for _ in range(300):
        panels.plot("losses", 0.0, {"G": 1.0})
        now[0] += 1
    assert attempts == [1000.0, 1060.0, 1120.0, 1180.0, 1240.0]


def test_panels_may_be_off(capsys: pytest.CaptureFixture[str]) -> None:
    panels = VisdomPanels("localhost", 1, "test", 0, 2)
    panels.plot("losses", 0.0, {"G": 1.0})
    panels.show_images(IMAGES)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("server", ["http://localhost:8097", "localhost:8097", "", "[::1]:8097"])
def test_host_with_a_port_is_refused(server: str) -> None:
    with pytest.raises(UserError, match="expected a host such as http://localhost"):
        VisdomPanels(server, 8097, "main", 1, 4)


def test_hosts_as_people_write_them() -> None:
    assert VisdomPanels("localhost", 1, "main", 1, 4).server == "http://localhost"
    assert VisdomPanels("https://gpu.example.org/", 1, "main", 1, 4).server == (
        "https://gpu.example.org"
    )
    assert VisdomPanels("http://[::1]", 1, "main", 1, 4)._host == "::1"


def test_curves_of_a_long_run_stay_bounded() -> None:
    panels = _panels(_free_port())
    for step in range(5000):
        panels.plot("losses", step, {"G": 1.0})
    positions = [position for position, _ in panels._points["losses"]]
    assert len(positions) <= MOST_POINTS
    assert positions[0] == 0
    assert positions == sorted(positions)


def test_curves_and_pictures_reach_a_real_server(
    server: int, capsys: pytest.CaptureFixture[str]
) -> None:
    panels = _panels(server)
    panels.plot("losses", 0.5, {"G_A": 2.0, "D_A": 1.0})
    panels.plot("losses", 1.0, {"G_A": 1.5, "D_A": 0.5})
    panels.plot("learning rate", 1.0, {"learning_rate": 2e-4})
    panels.plot("validation", 1, {"psnr": 21.5, "ssim": 0.4})
    panels.show_images(IMAGES, "epoch 1")
    windows = _windows(server)
    assert set(windows) == {"1", "2", "11", "12"}
    assert [curve["y"] for curve in windows["11"]["content"]["data"]] == [[21.5], [0.4]]
    assert windows["12"]["content"]["data"][0]["y"] == [2e-4]
    curves = {curve["name"]: curve for curve in windows["1"]["content"]["data"]}
    assert curves["G_A"]["x"] == [0.5, 1.0]
    assert curves["G_A"]["y"] == [2.0, 1.5]
    assert curves["D_A"]["y"] == [1.0, 0.5]
    assert windows["2"]["content"]["src"].startswith("data:image/png")
    assert windows["2"]["content"]["caption"] == "epoch 1"
    shown = capsys.readouterr()
    assert shown.out == shown.err == ""


def test_one_window_a_picture_and_a_single_curve(server: int) -> None:
    panels = _panels(server, ncols=0)
    panels.plot("losses", 1.0, {"G": 3.0})
    panels.show_images(IMAGES)
    windows = _windows(server)
    assert [windows[key]["title"] for key in "23"] == ["real_A", "fake_B"]
    assert windows["1"]["content"]["data"][0]["y"] == [3.0]


@pytest.mark.slow
def test_server_that_dies_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("visdom", reason="visdom is not installed")
    port = _free_port()
    process = _start_server(port, tmp_path / "first")
    try:
        _wait_until_up(process, port)
        panels = _panels(port)
        panels.plot("losses", 1, {"G": 1.0})
        _stop(process)
        panels.plot("losses", 2, {"G": 2.0})
        process = _start_server(port, tmp_path / "second")  # knows nothing of the first point
        _wait_until_up(process, port)
        monkeypatch.setattr(panels, "_retry_at", 0.0)
        panels.plot("losses", 3, {"G": 3.0})
        assert _windows(port)["1"]["content"]["data"][0]["y"] == [1.0, 2.0, 3.0]
    finally:
        _stop(process)
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told.startswith("visdom: no answer")
