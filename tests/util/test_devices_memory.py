from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

import util.devices
from util.devices import ENDLESS, VERSION_1, VERSION_2, _Names, free_memory

CPU = torch.device("cpu")
MEMINFO = "MemTotal:       8000000 kB\nMemFree:         10 kB\nMemAvailable:    1234567 kB\n"


@pytest.fixture(params=[VERSION_1, VERSION_2], ids=["v1", "v2"])
def names(request: pytest.FixtureRequest) -> _Names:
    """Both versions of control groups."""
    found: _Names = request.param
    return found


def cgroup(folder: Path, names: _Names, limit: str, used: int, inactive: int | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / names.limit).write_text(f"{limit}\n", encoding="utf-8")
    (folder / names.used).write_text(f"{used}\n", encoding="utf-8")
    stat = "anon 500\nfile 300\n" + ("" if inactive is None else f"{names.idle} {inactive}\n")
    (folder / "memory.stat").write_text(stat, encoding="utf-8")
    return folder


def test_the_kernel_says_what_the_machine_can_give(tmp_path: Path) -> None:
    path = tmp_path / "meminfo"
    path.write_text(MEMINFO, encoding="utf-8")
    assert util.devices._machine_free(path) == 1_234_567 * 1024


def test_without_its_word_half_of_what_is_built_in_counts(tmp_path: Path) -> None:
    half = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    assert util.devices._machine_free(tmp_path / "missing") == half
    (tmp_path / "old").write_text("MemTotal: 1 kB\n", encoding="utf-8")
    assert util.devices._machine_free(tmp_path / "old") == half


def container_free(folder: Path, names: _Names) -> int:
    return util.devices._container_free(folder, names)


def test_a_container_can_give_what_is_below_its_limit(tmp_path: Path, names: _Names) -> None:
    assert container_free(cgroup(tmp_path, names, "1000", 400), names) == 600
    assert container_free(cgroup(tmp_path, names, "1000", 1200), names) == 0


def test_files_that_were_merely_read_do_not_fill_a_container(tmp_path: Path, names: _Names) -> None:
    assert container_free(cgroup(tmp_path, names, "1000", 990, inactive=700), names) == 710


def test_without_a_limit_a_container_is_endless(tmp_path: Path, names: _Names) -> None:
    assert container_free(cgroup(tmp_path, names, "max", 400), names) == ENDLESS
    assert container_free(tmp_path / "missing", names) == ENDLESS


def test_the_narrower_of_machine_and_container_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: _Names
) -> None:
    monkeypatch.setattr(util.devices, "CGROUP", tmp_path)
    monkeypatch.setattr(util.devices, "_machine_free", lambda path: 5000)
    cgroup(tmp_path / names.mount, names, "10000", 9000)
    assert free_memory(CPU) == 1000
    cgroup(tmp_path / names.mount, names, "90000", 9000)
    assert free_memory(CPU) == 5000


def test_this_machine_has_some_memory_left() -> None:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 1 << 20 < free_memory(CPU) <= total


def test_a_gpu_is_asked_for_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answer(device: torch.device) -> tuple[int, int]:
        asked.append(device)
        return 123, 456

    monkeypatch.setattr(torch.cuda, "mem_get_info", answer)
    assert free_memory(torch.device("cuda:1")) == 123
    assert asked == [torch.device("cuda:1")]


@pytest.mark.parametrize("tree", ["4:memory", "11:cpu,memory", "3:memory,hugetlb", "0:"])
def test_limits_hold_at_every_level_of_the_own_group(tmp_path: Path, tree: str) -> None:
    listing = tmp_path / "cgroup"
    text = f"12:cpu:/x\n7:name=memory_of:/y\n{tree}:/system.slice/job_7/step_0\n"
    listing.write_text(text, encoding="utf-8")
    root = tmp_path / "fs"
    pattern = (VERSION_2 if tree == "0:" else VERSION_1).tree
    folders = util.devices._own_groups(listing, root, pattern)
    names = [folder.relative_to(root).as_posix() for folder in folders]
    assert names == ["system.slice/job_7/step_0", "system.slice/job_7", "system.slice", "."]
    assert util.devices._own_groups(tmp_path / "absent", root, pattern) == [root]


def test_processes_of_one_machine_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = free_memory(CPU)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_memory(CPU) == pytest.approx(alone / 4, rel=0.2)
