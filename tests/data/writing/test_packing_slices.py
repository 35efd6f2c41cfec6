"""SliceStream: order, bounded memory, and no gap after an error."""

from __future__ import annotations

import threading

import pytest

from data.writing.packing import Piece, PlainPacking, SliceStream

PATIENCE = 30.0  # seconds; only a test that fails waits so long
pack = PlainPacking().pack


def number(piece: Piece) -> int:
    return bytes(piece.content)[0]


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_written_in_order_though_packed_out_of_order(threads: int) -> None:
    written: list[int] = []
    packed = [threading.Event() for _ in range(6)]

    def pack_even_after_odd(raw: memoryview) -> Piece:
        if threads > 1 and raw[0] % 2 == 0:
            assert packed[raw[0] + 1].wait(PATIENCE)
        packed[raw[0]].set()
        return pack(raw)

    stream = SliceStream(pack_even_after_odd, lambda piece: written.append(number(piece)), threads)
    for index in range(6):
        stream.put(memoryview(bytes([index])))
    stream.drain()
    stream.close()
    assert written == list(range(6))


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_put_blocks_while_more_than_threads_and_one_are_waiting(threads: int) -> None:
    go_on = threading.Semaphore(0)
    returned = [threading.Event() for _ in range(threads + 4)]

    def write(piece: Piece) -> None:
        assert go_on.acquire(timeout=PATIENCE)

    stream = SliceStream(pack, write, threads)

    def put_all() -> None:
        for event in returned:
            stream.put(memoryview(b"slice"))
            event.set()

    caller = threading.Thread(target=put_all)
    caller.start()
    for index in range(len(returned)):
        if index > threads:
            assert not returned[index].wait(0.05), f"put {index} did not wait for the disk"
            go_on.release()
        assert returned[index].wait(PATIENCE)
    go_on.release(threads + 1)
    caller.join(PATIENCE)
    stream.drain()
    stream.close()


@pytest.mark.parametrize("failing", ["pack", "write"])
def test_nothing_is_written_after_an_error(failing: str) -> None:
    written: list[int] = []

    def fail(part: str, index: int) -> None:
        if part == failing and index == 2:
            raise OSError("no room")

    def failing_pack(raw: memoryview) -> Piece:
        fail("pack", raw[0])
        return pack(raw)

    def failing_write(piece: Piece) -> None:
        fail("write", number(piece))
        written.append(number(piece))

    def put_all(stream: SliceStream) -> None:
        for index in range(100):
            stream.put(memoryview(bytes([index])))

    stream = SliceStream(failing_pack, failing_write, 2)
    with pytest.raises(OSError, match="no room"):
        put_all(stream)
    with pytest.raises(OSError, match="no room"):
        stream.drain()
    stream.close()
    assert written == [0, 1]


def test_close_writes_what_was_put() -> None:
    written: list[int] = []
    stream = SliceStream(pack, lambda piece: written.append(number(piece)), 1)
    for index in range(2):
        stream.put(memoryview(bytes([index])))
    stream.close()
    assert written == [0, 1]


def test_no_threads() -> None:
    with pytest.raises(ValueError, match="0 threads: expected at least one"):
        SliceStream(pack, lambda piece: None, 0)
