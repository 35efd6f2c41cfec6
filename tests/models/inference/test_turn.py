"""One resolver in many threads and processes: the bits of one thread alone."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from engine_helpers import CPU, image, small_generator
from torch.utils.data import DataLoader, Dataset

from models.inference.openvino_trunk import openvino_available
from models.inference.slice_jobs import SliceJob
from models.inference.slice_resolver import SliceResolver
from models.inference.turn import Turn

pytest_plugins = ["engine_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = [(16, 90), (33, 47), (64, 64), (120, 9)] * 4
BACKENDS = ["torch", *["openvino"] * openvino_available()]


class Enlarged(Dataset[np.ndarray]):
    """The enlargements of all sizes."""

    def __init__(self, resolver: SliceResolver) -> None:
        self.resolver = resolver

    def __len__(self) -> int:
        return len(SIZES)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.resolver.upscale_slice(image(*SIZES[index]))


@pytest.fixture(scope="module", params=["instance norm", "texture"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make(kind: str, backend: str) -> SliceResolver:
    if kind == "instance norm":
        return SliceResolver(small_generator(2), CPU, backend=backend)
    return SliceResolver(
        small_generator(2, norm="none", skip="cubic", texture=3), CPU, backend=backend, texture=0.5
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_threads_that_share_a_resolver_get_the_bits_of_one(kind: str, backend: str) -> None:
    items = Enlarged(make(kind, backend))
    alone = [items[index] for index in range(len(items))]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(items.__getitem__, range(len(items))))
    for found, expected in zip(together, alone, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_draws_outlast_what_another_thread_enlarges_between_them(backend: str) -> None:
    resolver = make("texture", backend)
    job = SliceJob(image(40, 30), None, None)
    expected = list(resolver.upscale_draws(job, 3))
    found = []
    for draw in resolver.upscale_draws(job, 3):
        found.append(draw)
        other = threading.Thread(target=resolver.upscale_slice, args=(image(50, 44),))
        other.start()
        other.join()
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_loader_workers_get_the_bits_of_one(kind: str, backend: str, method: str) -> None:
    items = Enlarged(make(kind, backend))
    alone = [items[index] for index in range(len(items))]
    loader = DataLoader(
        items, batch_size=None, num_workers=2, multiprocessing_context=method, timeout=60
    )
    for found, expected in zip(loader, alone, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_forked_process_computes_though_torch_had_threads(kind: str) -> None:
    torch.set_num_threads(2)
    resolver = make(kind, "torch")
    large = image(300, 300)  # enough for torch's threads
    expected = resolver.upscale_slice(large)
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os._exit(not np.allclose(resolver.upscale_slice(large), expected, atol=1e-5))
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_fork_beside_a_thread_that_computes_gets_the_bits_of_one(backend: str) -> None:
    resolver, values, stop = make("instance norm", backend), image(60, 50), threading.Event()
    expected = resolver.upscale_slice(values)

    def compute() -> None:
        while not stop.is_set():
            resolver.upscale_slice(values)

    other = threading.Thread(target=compute)
    other.start()
    try:
        for _ in range(5):
            child = os.fork()
            if child == 0:
                signal.alarm(60)
                os._exit(not np.array_equal(resolver.upscale_slice(values), expected))
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        other.join()


def test_a_forked_process_does_not_wait_for_a_thread_that_is_not_there() -> None:
    turn = Turn()
    with turn:
        child = os.fork()
        if child == 0:
            held = threading.Thread(target=lambda: turn.__enter__())
            held.start()
            held.join(20)
            os._exit(held.is_alive())
        assert os.waitpid(child, 0)[1] == 0
