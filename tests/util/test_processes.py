from __future__ import annotations

import pytest
import torch

import training.launch
import util.devices
from train import main
from util.errors import UserError
from util.processes import own_device, processes_to_start

GPUS = [torch.device("cuda", index) for index in range(2)]


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(util.devices, "count_gpus", lambda: 2)
    monkeypatch.delenv("RANK", raising=False)


@pytest.mark.parametrize(("words", "count"), [("all", 2), ("0,1", 2), ("1", 1), ("-1", 1)])
def test_each_gpu_gets_a_process(two_gpus: None, words: str, count: int) -> None:
    assert processes_to_start(words) == count


def test_what_a_launcher_started_starts_no_more(
    two_gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    assert processes_to_start("all") == 1


def test_a_process_takes_the_device_of_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    assert own_device([torch.device("cpu")]) == torch.device("cpu")
    assert own_device(GPUS) == GPUS[0]
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "3"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert own_device(GPUS) == GPUS[1]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match="give --nproc_per_node 2"):
        own_device(GPUS)


def test_training_starts_a_process_for_each_gpu_with_its_own_words(
    two_gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[int, list[str]]] = []

    def launch(count: int, words: list[str]) -> int:
        started.append((count, words))
        return 130

    monkeypatch.setattr(training.launch, "launch", launch)
    words = ["--preset", "demo", "--name", "run"]
    assert main(words) == 130
    assert started == [(2, words)]
