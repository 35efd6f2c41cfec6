from __future__ import annotations

import json
import socket
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from training.monitor.loss_log import NonFiniteLossError
from training.monitor.training_monitor import PAGE_PICTURE_WIDTH, TrainingMonitor
from training.monitor.visdom_panels import VisdomPanels

NAMES = ("G", "D_A")


def monitor(
    folder: Path, step: int = 0, names: Sequence[str] = NAMES, **changes: Any
) -> TrainingMonitor:
    options = {
        "name": "run",
        "no_html": False,
        "precision": "fp32",
        "tensorboard": False,
        "display_server": "http://localhost",
        "display_port": 8097,
        "display_env": "main",
        "display_id": 0,
        "display_ncols": 3,
    }
    return TrainingMonitor(folder, names, Namespace(**{**options, **changes}), step, 0, ("psnr",))


def losses(value: float) -> dict[str, torch.Tensor]:
    return {"G": torch.tensor(value), "D_A": torch.tensor(2 * value)}


def pictures() -> dict[str, torch.Tensor]:
    return {
        "real_A": torch.linspace(-1, 1, 64).reshape(8, 8),
        "fake_B": torch.full((16, 16), -1.0),
    }


def test_losses_are_reported_as_means_and_written(tmp_path: Path) -> None:
    shown = monitor(tmp_path)
    shown.record(1, 1, losses(1.0))
    shown.record(1, 2, losses(2.0))
    assert not (tmp_path / "loss_log.csv").exists()  # nothing waited for the device yet
    assert shown.report(0.5) == "G 1.500 D_A 3.000"
    assert (tmp_path / "loss_log.csv").read_text() == "epoch,step,G,D_A\n1,1,1.0,2.0\n1,2,2.0,4.0\n"
    assert shown.report(0.5) == ""
    assert shown.flush() == {}


def test_a_resumed_run_drops_rows_past_its_checkpoint(tmp_path: Path) -> None:
    first = monitor(tmp_path)
    for step in (1, 2, 3):
        first.record(1, step, losses(step))
    first.flush()
    monitor(tmp_path, step=2)
    assert (tmp_path / "loss_log.csv").read_text().splitlines()[1:] == [
        "1,1,1.0,2.0",
        "1,2,2.0,4.0",
    ]


def test_a_loss_that_is_not_finite_ends_the_flush(tmp_path: Path) -> None:
    shown = monitor(tmp_path)
    shown.record(1, 8, losses(1.0))
    shown.record(1, 9, {"G": torch.tensor(1.0), "D_A": torch.tensor(float("nan"))})
    with pytest.raises(NonFiniteLossError, match="loss D_A is nan at step 9"):
        shown.flush()


def test_the_page_shows_pictures_at_their_grey_values(tmp_path: Path) -> None:
    shown = monitor(tmp_path)
    shown.write_page(2, 30, pictures())
    page = (tmp_path / "web" / "index.html").read_text(encoding="utf-8")
    assert f'width="{PAGE_PICTURE_WIDTH}"' in page
    (row,) = json.loads((tmp_path / "web" / "rows.json").read_text(encoding="utf-8"))["rows"]
    assert [entry["label"] for entry in row["images"]] == ["real_A", "fake_B"]
    with Image.open(tmp_path / "web" / row["images"][0]["file"]) as image:
        assert image.size == (8, 8)
        assert image.getextrema() == (0, 255)


def test_curves_that_cannot_be_written_cost_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "curves.png").mkdir()
    shown = monitor(tmp_path)
    for step in range(1, 4):
        shown.record(1, step, losses(float(step)))
        shown.write_page(1, step, {})
    shown.finish()
    assert len((tmp_path / "loss_log.csv").read_text(encoding="utf-8").splitlines()) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: cannot write ")
    assert line.endswith("; training goes on")


def test_no_row_without_pictures(tmp_path: Path) -> None:
    monitor(tmp_path).write_page(2, 30, {})
    assert "<section>" not in (tmp_path / "web" / "index.html").read_text()


def test_no_html_writes_no_page(tmp_path: Path) -> None:
    shown = monitor(tmp_path, no_html=True)
    shown.write_page(1, 1, pictures())
    shown.record(1, 1, losses(1.0))
    shown.flush()
    assert [path.name for path in tmp_path.iterdir()] == ["loss_log.csv"]


def test_display_options_reach_the_panels(tmp_path: Path) -> None:
    shown = monitor(
        tmp_path, display_server="http://vis", display_port=9, display_env="lung", display_id=4,
        display_ncols=2,
    )  # fmt: skip
    found = shown.panels
    assert (found.server, found.port, found.env) == ("http://vis", 9, "lung")
    assert (found.display_id, found.ncols) == (4, 2)


def test_panels_get_curves_and_grey_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    curves: list[tuple[str, float, dict[str, float]]] = []
    images: list[dict[str, Any]] = []
    monkeypatch.setattr(VisdomPanels, "plot", lambda _, *point: curves.append(point))
    monkeypatch.setattr(VisdomPanels, "show_images", lambda _, shown: images.append(shown))
    shown = monitor(tmp_path, names=(*NAMES, "learning_rate"), display_id=1)
    shown.record(1, 1, {**losses(1.0), "learning_rate": torch.tensor(1e-4)})
    shown.report(0.25)
    shown.show_pictures(3, pictures())
    shown.record(1, 2, {**losses(3.0), "learning_rate": torch.tensor(2e-4)})
    assert shown.report(0.5) == "G 3.000 D_A 6.000"
    shown.validated(1, 2, {"psnr": 20.0})
    assert curves == [
        ("losses", 0.25, {"G": 1.0, "D_A": 2.0}),
        ("learning rate", 0.25, {"learning_rate": pytest.approx(1e-4)}),
        ("losses", 0.5, {"G": 3.0, "D_A": 6.0}),
        ("learning rate", 0.5, {"learning_rate": pytest.approx(2e-4)}),
        ("validation", 1, {"psnr": 20.0}),
    ]
    (found,) = images
    assert list(found) == ["real_A", "fake_B"]
    assert found["fake_B"].dtype.name == "uint8"
    assert found["fake_B"].max() == 0
    monitor(tmp_path / "other", display_id=0).show_pictures(3, pictures())
    assert len(images) == 1  # without visdom no picture is even converted


def test_a_missing_server_costs_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shown = monitor(tmp_path, display_id=1, display_server="http://127.0.0.1", display_port=port)
    for step in (1, 2, 3):
        shown.record(1, step, losses(1.0))
        assert shown.report(step / 3) == "G 1.000 D_A 2.000"
        shown.show_pictures(3, pictures())
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "(training goes on without it)" in err


def test_the_page_shows_the_curves_and_comes_to_rest(tmp_path: Path) -> None:
    shown = monitor(tmp_path)
    shown.record(1, 1, losses(1.0))
    shown.write_page(1, 1, {})
    page = tmp_path / "web" / "index.html"
    assert 'src="../curves.png' in page.read_text()
    assert (tmp_path / "web" / "../curves.png").is_file()
    assert 'http-equiv="refresh"' in page.read_text()
    shown.finish()
    assert 'http-equiv="refresh"' not in page.read_text()
