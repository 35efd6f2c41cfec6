from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from training_helpers import save_state, tiny_model

from models.checkpoints.checkpoint import (
    load_checkpoint,
    load_generator,
    load_original_weights,
    save_checkpoint,
)
from models.networks import DownsamplingGenerator, SRGenerator
from training.state import Position
from util.errors import UserError


def saved(path: Path) -> Path:
    model = tiny_model()
    windows = {"normalization": "window"}
    save_state(path, model, Position(1), windows, ["aa", "bb"])
    return path


def test_a_checkpoint_brings_all_that_testing_needs(tmp_path: Path) -> None:
    loaded = load_generator(saved(tmp_path / "latest.pt"))
    assert loaded.generator.scale == 2
    assert loaded.generator.architecture["ngf"] == 4
    assert loaded.windows == {"normalization": "window"}
    assert loaded.training_digests == {"aa", "bb"}
    assert loaded.step == 0
    assert not loaded.generator.training
    assert not (tmp_path / "latest.pt.partial").exists()


@pytest.mark.parametrize("prefix", ["", "module."])
def test_bare_weights_of_the_original_code_load_as_they_are(tmp_path: Path, prefix: str) -> None:
    generator = SRGenerator(3, ngf=8)
    weights = {prefix + key: value for key, value in generator.state_dict().items()}
    path = tmp_path / "latest_net_G_A.pth"
    torch.save(weights, path)
    loaded = load_generator(path)
    assert loaded.generator.architecture == generator.architecture
    assert loaded.windows is None
    assert loaded.step is None
    for key, value in generator.state_dict().items():
        assert torch.equal(loaded.generator.state_dict()[key], value)


def test_the_four_original_files_are_found_together(tmp_path: Path) -> None:
    model = tiny_model()
    assert load_original_weights(tmp_path, "latest") is None
    for name, network in model.networks.items():
        torch.save(network.state_dict(), tmp_path / f"latest_net_{name}.pth")
    weights = load_original_weights(tmp_path, "latest")
    assert weights is not None
    tiny_model("--seed", "3").load_networks(weights)


def test_wrong_files_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no checkpoint .*train first: bash run\.sh"):
        load_generator(tmp_path / "checkpoints" / "run" / "latest.pt")
    whole = saved(tmp_path / "epoch_5.pt")
    with pytest.raises(UserError, match=r"no checkpoint .*there is epoch_5\.pt"):
        load_generator(tmp_path / "latest.pt")
    cut = tmp_path / "cut.pt"
    cut.write_bytes(whole.read_bytes()[:4000])
    with pytest.raises(UserError, match=r"cut\.pt cannot be read as a checkpoint"):
        load_generator(cut)
    text = tmp_path / "text.pt"
    text.write_text("no weights here")
    with pytest.raises(UserError, match=r"text\.pt"):
        load_generator(text)
    other = tmp_path / "latest_net_G_B.pth"
    torch.save(DownsamplingGenerator(1, 4, 2).state_dict(), other)
    with pytest.raises(UserError, match="does not hold an SR generator"):
        load_generator(other)
    with pytest.raises(UserError, match="no training state"):
        load_checkpoint(other)


def test_a_file_that_could_run_code_is_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "pickle.pth"
    torch.save({"network": SRGenerator(1, 4, 1)}, path)
    with pytest.raises(UserError, match="could run code"):
        load_generator(path)


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "latest.pt"
    save_checkpoint(path, {})
    state = torch.load(path, weights_only=True)
    torch.save({**state, "version": 99}, path)
    with pytest.raises(UserError, match="version 99, this code knows up to 2"):
        load_checkpoint(path)


def test_a_full_disk_is_one_line_and_keeps_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "latest.pt")
    before = path.read_bytes()

    def full(*arguments: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc] unexpected pos 64 vs 0\nmore")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=r"cannot write .*latest\.pt: .*unexpected pos"):
        save_checkpoint(path, {})
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "value"),
    [("version", None), ("version", "x"), ("options", None), ("position", None),
     ("training_digests", None), ("architecture", 3), ("average", {"x": 1})],
)  # fmt: skip
def test_a_part_of_another_kind_is_called_damaged(tmp_path: Path, name: str, value: Any) -> None:
    path = saved(tmp_path / "latest.pt")
    torch.save({**torch.load(path, weights_only=True), name: value}, path)
    with pytest.raises(UserError, match="is a damaged checkpoint"):
        load_generator(path)


def test_a_checkpoint_without_its_parts_is_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "latest.pt"
    save_checkpoint(path, {"architecture": {"sampling_times": 1, "ngf": 4}, "networks": {}})
    with pytest.raises(UserError, match="is a damaged checkpoint"):
        load_generator(path)
