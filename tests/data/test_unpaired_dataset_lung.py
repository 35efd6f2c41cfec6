"""Clinical CT as fine data: `clinical_as_micro` of data/unpaired_dataset.py."""

from __future__ import annotations

import numpy as np
import pytest
from dataset_helpers import clinical_volume, is_patch_of, make_dataset, make_volume

from data.windows import CLINICAL_WINDOW
from util.errors import UserError


def test_clinical_ct_takes_the_place_of_its_share_of_micro_patches() -> None:
    mask = np.zeros((4, 30, 40), np.uint8)
    mask[:, 10:20, 15:25] = 1  # patches need their centre in the lung only
    bright = make_volume(np.full((3, 70, 60), 900, np.uint16), "micro.tif")
    dataset = make_dataset(
        clinical=[(clinical_volume(), mask)],
        micro=[bright],
        micro_patch_size=16,
        clinical_patch_size=4,
        patches_per_volume=400,
        clinical_as_micro=0.3,
    )
    unit = CLINICAL_WINDOW.to_unit(clinical_volume().array)
    of_ct = [item["micro"][0].numpy() for item in dataset if item["micro"].mean() < 0.7]
    assert len(of_ct) == pytest.approx(120, abs=30)
    assert all(is_patch_of(patch, unit) for patch in of_ct[:20])
    shrunk = make_dataset(micro=[bright], micro_mix=1.0, micro_patch_size=16, clinical_patch_size=4)
    both = make_dataset(
        micro=[bright],
        micro_mix=1.0,
        clinical_as_micro=1.0,
        micro_patch_size=16,
        clinical_patch_size=4,
    )
    assert all((item["clinical"] > 0.7).all() for item in shrunk)
    assert not any((item["clinical"] > 0.7).all() for item in both)


def test_clinical_ct_that_is_smaller_than_a_micro_patch_is_left_out() -> None:
    with pytest.raises(UserError, match="clinical_as_micro takes patches of 32 x 32 pixels"):
        make_dataset(clinical_as_micro=0.5)  # 30 rows


def test_a_smaller_ct_beside_a_larger_one_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    mask = np.ones((4, 30, 40), np.uint8)
    large = make_volume(np.zeros((4, 64, 64), np.int16), "large.nii")
    make_dataset(
        clinical=[(clinical_volume(), mask), (large, np.ones((4, 64, 64), np.uint8))],
        clinical_as_micro=0.5,
    )
    told = capsys.readouterr().out
    assert told.startswith("--clinical_as_micro leaves out 1 of 2 clinical volumes, which are")
