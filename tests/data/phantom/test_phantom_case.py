"""Reading phantom patients back, and the benchmark's fixed ones."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

import data.phantom.case
from data.phantom.anatomy.disease import DISEASES
from data.phantom.case import DISEASES_IN_TURN, FIRST_SEEDS, fixed_patients, read_case
from data.phantom.pair import PairPlan, write_pair
from util.errors import UserError

PLAN = PairPlan(5, DISEASES["ground_glass_nodule"], scale=2, size=(16, 14, 2))


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pair(tmp_path_factory.mktemp("case") / "seed5", PLAN)


def test_a_patient_is_read_as_it_was_written(patient: Path) -> None:
    case = read_case(patient)
    assert (case.name, case.group, case.scale) == ("seed5", "ground_glass_nodule", 2)
    assert case.clinical.shape == case.mask.shape == (2, 14, 16)
    assert case.truth.shape == case.thin.shape == case.labels.shape == (2, 28, 32)
    assert case.spacing == pytest.approx((0.25, 0.25, 0.5))
    assert case.mask.all()
    average = case.truth.reshape(2, 14, 2, 16, 2).mean((2, 4))
    assert np.corrcoef(average.ravel(), case.clinical.ravel())[0, 1] > 0.7  # blur and noise


def test_regions_part_the_field(patient: Path) -> None:
    regions = read_case(patient).regions
    assert set(regions) >= {"lung", "parenchyma", "nodule"}
    parts = sum(mask.astype(int) for name, mask in regions.items() if name != "lung")
    assert np.all(parts == regions["lung"])


def test_what_is_no_patient_is_refused(patient: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no phantom patient .*python -m data\.phantom"):
        read_case(tmp_path)
    (tmp_path / "phantom.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be read"):
        read_case(tmp_path)
    told = json.loads((patient / "phantom.json").read_text())
    (tmp_path / "phantom.json").write_text(json.dumps({**told, "complete": False}))
    with pytest.raises(UserError, match="is not complete"):
        read_case(tmp_path)


def test_the_benchmarks_patients_are_fixed_unseen_and_of_every_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[PairPlan] = []

    def write(folder: Path, plan: PairPlan, processes: int) -> Path:
        plans.append(plan)
        return folder

    monkeypatch.setattr(data.phantom.case, "write_pair", write)
    said: list[str] = []
    template = PairPlan(0, with_micro=False)
    folders = fixed_patients(tmp_path, template, "test", 7, 2, said.append)
    assert [plan.seed for plan in plans] == list(range(301, 308))
    assert not any(plan.with_micro for plan in plans)
    assert [asdict(plan.disease) for plan in plans[:5]] == [
        asdict(DISEASES[name]) for name in DISEASES_IN_TURN
    ]
    assert folders[1] == tmp_path / "seed302_emphysema"
    assert said[6] == "phantom: making test patient 7 of 7, emphysema (once)"


def test_the_sets_share_no_patient_with_each_other_or_with_training() -> None:
    sets = [set(range(first, first + 10)) for first in FIRST_SEEDS.values()]
    trained = {*range(101, 106), *range(201, 211), *(100 * n + k for n in (0,) for k in range(32))}
    for number, one in enumerate(sets):
        assert not one & trained
        assert all(not one & other for other in sets[number + 1 :])
