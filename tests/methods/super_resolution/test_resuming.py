"""What a run that is resumed shares with the earlier one, to the last bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from engine_helpers import CPU
from writer_helpers import stop_after

import models.inference.slice_resolver
from methods.super_resolution.resuming import (
    is_finished,
    plan_as_before,
    refuse_without_memory,
    rounding_facts,
)
from models.inference.super_resolver import SuperResolver
from models.networks import SRGenerator
from util.errors import UserError

NAME = "SR.nii.gz"


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> SuperResolver:
    allow(monkeypatch, 8 * 10**9)
    return SuperResolver(SRGenerator(2, ngf=8, blocks=1).eval(), CPU)


def allow(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(models.inference.slice_resolver, "free_memory", lambda device: free)


def begin(folder: Path, max_memory: object, band_values: int = 1 << 19) -> None:
    """A run that was broken off after one slice."""
    key = {"max_memory": max_memory, "band_values": band_values}
    stop_after(folder / NAME, 1, resume_key=key)


def test_the_memory_of_the_earlier_run_is_taken(resolver: SuperResolver, tmp_path: Path) -> None:
    before = resolver.memory.needed(500 * 400, 1)
    begin(tmp_path, before, 4096)
    plan_as_before(resolver, tmp_path, NAME)
    assert resolver.max_memory == before
    assert resolver.memory.band_values == resolver.engine.recomputed_values == 8 * 4096
    assert rounding_facts(resolver)["band_values"] == 4096
    assert rounding_facts(resolver)["max_memory"] == before


def test_a_finished_case_tells_its_memory_in_its_record(
    resolver: SuperResolver, tmp_path: Path
) -> None:
    record = {"determined_by": {"max_memory": 10**9, "band_values": 1 << 19}}
    (tmp_path / "run.json").write_text(json.dumps(record), encoding="utf-8")
    plan_as_before(resolver, tmp_path, NAME)
    assert resolver.max_memory == 10**9
    begin(tmp_path, 2 * 10**9)  # its replacement, which was broken off, comes first
    plan_as_before(resolver, tmp_path, NAME)
    assert resolver.max_memory == 2 * 10**9


@pytest.mark.parametrize("record", [None, "", "[]", "{}", '{"determined_by": {"max_memory": "1"}}'])
def test_without_an_earlier_run_nothing_changes(
    resolver: SuperResolver, tmp_path: Path, record: str | None
) -> None:
    if record is not None:
        (tmp_path / "run.json").write_text(record, encoding="utf-8")
    before = resolver.max_memory
    plan_as_before(resolver, tmp_path, NAME)
    assert resolver.max_memory == before


def test_less_memory_than_before_is_one_line_unless_the_plan_fits(
    resolver: SuperResolver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = resolver.memory
    begin(tmp_path, memory.needed(500 * 400, 2) + 10**9)  # more than the plan needs
    allow(monkeypatch, int(memory.needed(500 * 400, 2) / 0.6) + 10)
    plan_as_before(resolver, tmp_path, NAME)
    refuse_without_memory(resolver, 500, 400, tmp_path / NAME)
    allow(monkeypatch, int(memory.needed(500 * 400, 2) / 0.6) - 10)
    with pytest.raises(UserError, match=r"was begun with 0\... GB for a slice, the free memory"):
        refuse_without_memory(resolver, 500, 400, tmp_path / NAME)


def finished(folder: Path, key: dict[str, int], *names: str) -> None:
    for name in names:
        (folder / name).write_bytes(b"")
    record = {"determined_by": key, "outputs": [str(folder / name) for name in names]}
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")


def test_files_of_another_run_beside_a_finished_one_are_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "uncertainty.nii.gz").write_bytes(b"of an earlier checkpoint")
    finished(tmp_path, {"weights": 2}, NAME, "clinical.nii.gz")
    assert is_finished(tmp_path, [NAME, "clinical.nii.gz"], {"weights": 2})
    assert not is_finished(
        tmp_path, [NAME, "clinical.nii.gz", "uncertainty.nii.gz"], {"weights": 2}
    )


def test_a_result_of_another_kind_is_not_replaced_for_a_missing_companion(tmp_path: Path) -> None:
    finished(tmp_path, {"weights": 1}, NAME)
    with pytest.raises(UserError, match="was made by another kind of run: weights was 1, is now 2"):
        is_finished(tmp_path, [NAME, "preview.png"], {"weights": 2})
    assert not is_finished(tmp_path, [NAME, "preview.png"], {"weights": 1})
