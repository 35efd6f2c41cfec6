"""Several processes under torchrun train one model, on the CPU."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from forked_programs import start_program
from training_helpers import TINY_RUN, loss_rows, write_training_data

from models.checkpoints.checkpoint import load_checkpoint

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 240.0  # seconds; only a test that fails waits so long
ALIKE = ("--batch_num", "8", "--no_html", "--niter_decay", "0", "--pool_size", "2")


@pytest.fixture
def words(tmp_path: Path) -> tuple[str, ...]:
    data = write_training_data(tmp_path / "volumes")
    return (*TINY_RUN, *data, *ALIKE, "--checkpoints_dir", str(tmp_path))


TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
# What train.py does where it finds two GPUs.
OURS = ["-c", "import sys; from training.launch import launch; sys.exit(launch(2, sys.argv[2:]))"]


def launch(*words: str, runner: list[str] = TORCHRUN) -> subprocess.Popen[str]:
    """Two processes by a launcher, their output in a pipe."""
    return subprocess.Popen(
        [sys.executable, *runner, str(ROOT / "train.py"), *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # ignored under nohup
    )


def train(folder: Path, count: int, *words: str, code: int = 0) -> str:
    """Run `count` processes to the end, as torchrun would, but forked; returns what they say."""
    place = {"WORLD_SIZE": str(count), "MASTER_ADDR": "localhost", "MASTER_PORT": free_port()}
    logs = [folder / f"log_{rank}.txt" for rank in range(count)]
    processes = [
        start_program(
            "train", list(words), log, 1, {**place, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        )
        for rank, log in enumerate(logs)
    ]
    for process in processes:
        process.join(PATIENCE)
    out = "".join(log.read_text(encoding="utf-8") for log in logs)
    assert [process.exitcode for process in processes] == [code] * count, out
    return out


def free_port() -> str:
    with socket.create_server(("localhost", 0)) as server:
        return str(server.getsockname()[1])


@pytest.mark.slow
def test_two_processes_average_the_gradient_of_the_doubled_batch(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    """Adam's first moment after one step is (1 - beta1) times the gradient."""
    one_step = ("--max_dataset_size", "4", "--niter", "1")
    train(tmp_path, 1, *words, *one_step, "--name", "one", "--batch_size", "4")
    out = train(tmp_path, 2, *words, *one_step, "--name", "two", "--batch_size", "2")
    assert "2 processes" in out
    assert out.count("trained: ") == 1
    states = [load_checkpoint(tmp_path / name / "latest.pt") for name in ("one", "two")]
    for name in ("G", "D"):
        first, second = (state["optimizers"][name]["state"] for state in states)
        assert first.keys() == second.keys() != set()
        gradients = [
            torch.cat([moments[key]["exp_avg"].flatten() for key in sorted(moments)])
            for moments in (first, second)
        ]
        difference = float((gradients[0] - gradients[1]).norm() / gradients[0].norm())
        assert difference < 1e-5
    first, second = (loss_rows(tmp_path / name) for name in ("one", "two"))
    assert len(first) == len(second) == 1
    for name in ("G", "cycle_A", "idt_A", "clinical_ssim", "D_A"):
        assert float(first[0][name]) == pytest.approx(float(second[0][name]), rel=1e-5), name
    assert [len(state["processes"]) for state in states] == [1, 2]
    record = json.loads((tmp_path / "two" / "run.json").read_text(encoding="utf-8"))
    assert record["processes"] == 2


@pytest.mark.slow
@pytest.mark.long
def test_a_run_goes_on_exactly_with_as_many_and_on_with_another_number(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    train(tmp_path, 2, *words, "--niter", "1", "--name", "parts", "--lr_policy", "constant")
    train(tmp_path, 2, *words, "--niter", "2", "--name", "plain", "--lr_policy", "constant")
    place = ("--checkpoints_dir", str(tmp_path), "--continue_train", "--name")
    train(tmp_path, 2, *place, "parts", "--niter", "2")
    states = [load_checkpoint(tmp_path / name / "latest.pt") for name in ("plain", "parts")]
    for name, weights in states[0]["networks"].items():
        for key, weight in weights.items():
            assert torch.equal(weight, states[1]["networks"][name][key]), (name, key)
    assert (tmp_path / "plain" / "loss_log.csv").read_bytes() == (
        tmp_path / "parts" / "loss_log.csv"
    ).read_bytes()
    assert not torch.equal(
        states[0]["processes"][0]["random"]["torch"], states[0]["processes"][1]["random"]["torch"]
    )
    out = train(tmp_path, 1, *place, "parts", "--niter", "3")
    assert "8 patches and 4 steps an epoch" in out
    assert len(loss_rows(tmp_path / "parts")) == 2 * 2 + 4  # two processes take half the steps


@pytest.mark.slow
@pytest.mark.parametrize(
    ("receivers", "number"),
    [
        ("torchrun", signal.SIGTERM),
        ("torchrun", signal.SIGUSR1),  # which ends torchrun itself at once
        ("one of two", signal.SIGINT),
        ("group", signal.SIGTERM),
        ("group", signal.SIGHUP),
    ],
)
def test_a_signal_stops_all_at_the_same_step(
    words: tuple[str, ...], tmp_path: Path, receivers: str, number: signal.Signals
) -> None:
    """Loader processes, too, get what is sent to the group."""
    process = launch(*words, "--niter", "9999", "--name", "run", "--num_threads", "1")
    until_trained(tmp_path / "run", process)
    if receivers == "group":
        os.killpg(process.pid, number)
    else:
        os.kill(process.pid if receivers == "torchrun" else workers_of(process)[1], number)
    out, _ = process.communicate(timeout=PATIENCE)
    assert out.count("stopped after step") == 1, out
    step = load_checkpoint(tmp_path / "run" / "latest.pt")["position"]["step"]
    assert f"stopped after step {step} " in out
    assert len(loss_rows(tmp_path / "run")) == step


@pytest.mark.slow
@pytest.mark.parametrize(
    ("receivers", "number"), [("launcher", signal.SIGUSR1), ("group", signal.SIGINT)]
)
def test_processes_of_our_own_stop_with_one_word_and_code(
    words: tuple[str, ...], tmp_path: Path, receivers: str, number: signal.Signals
) -> None:
    process = launch(*words, "--niter", "9999", "--name", "run", runner=OURS)
    until_trained(tmp_path / "run", process)
    (os.killpg if receivers == "group" else os.kill)(process.pid, number)
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, out
    step = load_checkpoint(tmp_path / "run" / "latest.pt")["position"]["step"]
    assert f"stopped after step {step} " in out
    assert "go on with: bash run.sh --continue_train --name run" in out
    assert len(loss_rows(tmp_path / "run")) == step


@pytest.mark.slow
def test_processes_of_our_own_train_as_those_of_torchrun(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    train(tmp_path, 2, *words, "--niter", "1", "--name", "forked")
    process = launch(*words, "--niter", "1", "--name", "ours", runner=OURS)
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, out
    assert "2 processes" in out
    logs = [(tmp_path / name / "loss_log.csv").read_bytes() for name in ("forked", "ours")]
    assert logs[0] == logs[1]


@pytest.mark.slow
def test_a_loader_that_dies_stops_all_with_all_saved(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    process = launch(*words, "--niter", "9999", "--name", "run", "--num_threads", "1")
    until_trained(tmp_path / "run", process)
    (loader,) = children_of(workers_of(process)[1])
    os.kill(loader, signal.SIGKILL)
    out, _ = process.communicate(timeout=PATIENCE)
    assert out.count("error: a loader process was ended by SIGKILL") == 1, out
    step = load_checkpoint(tmp_path / "run" / "latest.pt")["position"]["step"]
    assert f"saved after step {step} " in out
    assert len(loss_rows(tmp_path / "run")) == step


@pytest.mark.slow
def test_a_process_that_dies_ends_all_and_its_error_is_shown(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    process = launch(*words, "--niter", "9999", "--name", "run", "--print_freq", "1")
    until_trained(tmp_path / "run", process)
    workers = workers_of(process)
    os.kill(workers[1], signal.SIGKILL)
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    assert "Signal 9 (SIGKILL) received" in out
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)


@pytest.mark.slow
def test_an_error_of_one_process_is_told_in_its_line(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "latest.pt").touch()
    process = launch(*words, "--niter", "1", "--name", "run")
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1  # torchrun's own
    assert "already holds a model: --continue_train goes on with it" in out


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """Process ids of the two that torchrun has started."""
    workers = children_of(process.pid)
    assert len(workers) == 2
    return workers


def children_of(process: int) -> list[int]:
    listed = subprocess.run(
        ["ps", "--ppid", str(process), "-o", "pid="],
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return [int(word) for word in listed.stdout.split()]


def until_trained(folder: Path, process: subprocess.Popen[str]) -> None:
    """Wait until the first losses are written."""
    begun = time.monotonic()
    while not (folder / "loss_log.csv").exists() or not loss_rows(folder):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() - begun < PATIENCE
        time.sleep(0.05)


@pytest.mark.slow
def test_an_epoch_that_is_too_small_to_share_is_refused(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    out = train(tmp_path, 2, *words, "--max_dataset_size", "1", "--name", "run", code=2)
    assert "an epoch of 1 patches cannot be shared among 2 processes" in out
