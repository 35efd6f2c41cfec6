from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_helpers import write_case, write_micro

import data.training_data
from data.formats.readers import read_volume
from data.phantom.training_set import PhantomPaths
from data.training_data import (
    TrainingData,
    choose_windows,
    lung_share,
    open_training_data,
    refuse_missed,
)
from data.volumes.volume import Volume
from data.windows import CLINICAL_WINDOW, IntensityWindow, WindowPolicy
from data.writing.nifti_writer import write_volume
from util.errors import UserError


def open_data(tmp_path: Path, **changes: Any) -> TrainingData:
    arguments: dict[str, Any] = {
        "dataset_mode": "unpaired",
        "clinical_words": [],
        "micro_words": [],
        "phantom_folder": tmp_path / "phantom" / "x2",
        "scale": 2,
        "cache_dir": None,
        "mask_folder": None,
        "spacing": None,
        "slices": None,
        "normalization": "window",
        "window_words": None,
        "stored_windows": None,
        "say": lambda line: None,
    }
    return open_training_data(**{**arguments, **changes})


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """A clinical volume with its mask and a micro volume."""
    clinical = write_case(tmp_path / "clinical", "ct", (20, 16, 4))
    micro = write_micro(tmp_path / "micro", "specimen", (40, 36, 3))
    return str(clinical), str(micro)


def test_volumes_come_with_masks_windows_and_digests(
    tmp_path: Path, files: tuple[str, str]
) -> None:
    found = open_data(tmp_path, clinical_words=[files[0]], micro_words=[files[1]])
    (volume, mask), (micro,) = found.clinical[0], found.micro
    assert volume.size == (20, 16, 4)
    assert micro.size == (40, 36, 3)
    assert mask is not None
    expected = np.zeros((4, 16, 20), dtype=bool)
    expected[:, 2:-2, 2:-2] = True
    np.testing.assert_array_equal(mask != 0, expected)
    assert found.windows.clinical == CLINICAL_WINDOW
    values = np.concatenate([micro.read_slice(index).ravel() for index in range(3)])
    low, high = np.percentile(values, [0.1, 99.9])
    assert found.windows.micro.low == pytest.approx(low)
    assert found.windows.micro.high == pytest.approx(high)
    assert found.digests == sorted(set(volume.slice_digests()) | set(micro.slice_digests()))
    assert len(found.digests) == 7
    assert found.sources == {"clinical": [files[0]], "micro": [files[1]]}


def test_folders_hold_several_volumes(tmp_path: Path, files: tuple[str, str]) -> None:
    write_case(tmp_path / "clinical", "second", (24, 16, 2), seed=3)
    found = open_data(
        tmp_path,
        clinical_words=[str(tmp_path / "clinical")],
        micro_words=[str(tmp_path / "micro" / "*.nii")],
    )
    assert [volume.name for volume, _ in found.clinical] == ["ct", "second"]
    assert [mask.shape for _, mask in found.clinical if mask is not None] == [
        (4, 16, 20),
        (2, 16, 24),
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [("clinical", r"no micro-CT: give --micro_folder"), ("micro", r"no clinical CT: give --clin")],
)
def test_unpaired_training_needs_both_domains(
    tmp_path: Path, files: tuple[str, str], given: str, message: str
) -> None:
    words = {f"{given}_words": [files[given == "micro"]]}
    with pytest.raises(UserError, match=message):
        open_data(tmp_path, **words)


def test_the_public_setting_needs_clinical_ct_alone(tmp_path: Path, files: tuple[str, str]) -> None:
    found = open_data(tmp_path, dataset_mode="public_2D", clinical_words=[files[0]])
    assert found.micro == []
    # The high-resolution domain is clinical CT, too, and so is its window.
    assert found.windows.micro == found.windows.clinical == CLINICAL_WINDOW
    assert len(found.digests) == 4


@pytest.mark.parametrize("mode", ["unpaired", "public_2D"])
def test_without_any_path_the_phantom_is_made(
    tmp_path: Path, files: tuple[str, str], monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    asked: list[tuple[Path, int]] = []
    lines: list[str] = []

    def generate(folder: Path, scale: int, progress: Any) -> PhantomPaths:
        asked.append((folder, scale))
        progress(1, 6, "ct.nii")
        return PhantomPaths(folder, tmp_path / "clinical", tmp_path / "micro", tmp_path, tmp_path)

    monkeypatch.setattr(data.training_data, "generate_phantom", generate)
    found = open_data(tmp_path, dataset_mode=mode, say=lines.append)
    assert asked == [(tmp_path / "phantom" / "x2", 2)]
    assert lines[0].startswith("no data given: training on the digital lung phantom in ")
    assert lines[1] == "phantom: made ct.nii (1 of 6)"
    assert len(found.clinical) == 1
    assert len(found.micro) == (3 if mode == "unpaired" else 0)  # across all three axes


def test_slices_select_from_every_volume_and_its_mask(
    tmp_path: Path, files: tuple[str, str]
) -> None:
    clinical, micro = files
    found = open_data(tmp_path, clinical_words=[clinical], micro_words=[micro], slices="1:3")
    volume, mask = found.clinical[0]
    whole = read_volume(clinical)
    assert mask is not None
    assert volume.num_slices == len(mask) == found.micro[0].num_slices == 2
    np.testing.assert_array_equal(volume.read_slice(0), whole.read_slice(1))
    # Only what training may see counts as seen.
    assert found.digests == sorted(
        whole.slice_digests()[1:3] + read_volume(micro).slice_digests()[1:3]
    )
    with pytest.raises(UserError, match="holds no slice of a volume of 3"):
        open_data(tmp_path, clinical_words=[clinical], micro_words=[micro], slices="3:")


def test_masks_may_lie_in_a_folder_of_their_own(tmp_path: Path, files: tuple[str, str]) -> None:
    mask = np.zeros((4, 16, 20), dtype=np.int16)
    mask[2] = 1
    folder = tmp_path / "masks"
    write_volume(folder / "ct_mask.nii.gz", mask, read_volume(files[0]).affine)
    found = open_data(
        tmp_path, clinical_words=[files[0]], micro_words=[files[1]], mask_folder=folder
    )
    assert found.clinical[0][1] is not None
    np.testing.assert_array_equal(found.clinical[0][1] != 0, mask != 0)
    assert " 25 % " in found.describe([3, 4])


def test_stored_windows_win_over_measured_ones(tmp_path: Path, files: tuple[str, str]) -> None:
    stored = WindowPolicy("minmax", IntensityWindow(-5, 5), IntensityWindow(0, 1))
    found = open_data(
        tmp_path, clinical_words=[files[0]], micro_words=[files[1]],
        stored_windows=stored.as_dict(), window_words=["clinical=-900:300"],
    )  # fmt: skip
    assert found.windows == stored


def test_windows_by_flag(tmp_path: Path, files: tuple[str, str]) -> None:
    micro = [read_volume(files[1])]
    policy = choose_windows("window", ["clinical=-900:300", "micro=0:255"], micro)
    assert policy.clinical == IntensityWindow(-900, 300)
    assert policy.micro == IntensityWindow(0, 255)
    measured = choose_windows("window", ["micro=auto"], micro)
    assert measured == choose_windows("window", None, micro)
    assert choose_windows("minmax", None, micro).normalization == "minmax"
    assert choose_windows("window", ["clinical=0:1"], []).micro == IntensityWindow(0, 1)


@pytest.mark.parametrize("values", [(-9, 2500), (12250, 30000)])
def test_a_volume_of_which_the_window_leaves_nothing_is_refused(values: tuple[int, int]) -> None:
    """8-bit micro-CT beside 16-bit, or beside weights that know it."""
    policy = WindowPolicy("window", CLINICAL_WINDOW, IntensityWindow(2500.0, 12250.0))
    array = np.full((2, 3, 3), values[0], dtype=np.int16)
    array[1] = values[1]
    volume = Volume(array, np.eye(4), "fly.tif")
    told = rf"fly.tif has values of {values[0]} to {values[1]}, all outside the micro window 2500"
    with pytest.raises(UserError, match=told):
        refuse_missed(volume, policy, "micro")
    array[0] = 3000  # a little of it is seen
    refuse_missed(volume, policy, "micro")
    array[0] = values[0]
    refuse_missed(volume, WindowPolicy("minmax", policy.clinical, policy.micro), "micro")


def test_training_refuses_what_its_window_misses(tmp_path: Path, files: tuple[str, str]) -> None:
    words = {"clinical_words": [files[0]], "micro_words": [files[1]]}
    for missed in ("clinical=20000:30000", "micro=-9:-1"):
        with pytest.raises(UserError, match=f"all outside the {missed.split('=')[0]} window"):
            open_data(tmp_path, **words, window_words=[missed])


def test_description_has_size_spacing_lung_share_and_windows(
    tmp_path: Path, files: tuple[str, str]
) -> None:
    words = {"clinical_words": [files[0]], "micro_words": [files[1]]}
    found = open_data(tmp_path, **words, window_words=["micro=0:9000"])
    ct, micro = found.clinical[0][0], found.micro[0]
    ranges = [f"{v.array.min():g} to {v.array.max():g}" for v in (ct, micro)]
    lines = found.describe([1234, 7]).splitlines()
    cells = [re.split(r"\s{2,}", line) for line in lines]
    assert cells == [
        ["domain", "voxels", "mm", "range", "lung", "patches", "file"],
        ["clinical", "20x16x4", "0.7x0.7x1.25", ranges[0], "60 %", "1,234", files[0]],
        ["micro", "40x36x3", "0.05x0.05x0.05", ranges[1], "7", files[1]],
        [f"lung mask of {files[0]}: {files[0].replace('.nii.gz', '_mask.nii.gz')}"],
        ["windows", "clinical [-1000, 500] HU, micro [0, 9000]"],
    ]
    assert len({line.index("/") for line in lines[1:3]}) == 1  # columns stand below each other
    published = open_data(tmp_path, **words, normalization="minmax").describe([1, 2])
    assert published.endswith("windows  each volume's own range (as published)")


def test_an_assumed_voxel_size_is_called_so(tmp_path: Path) -> None:
    volume = Volume(np.zeros((1, 2, 2), np.int16), np.eye(4), "stack", spacing_known=False)
    policy = WindowPolicy("window", CLINICAL_WINDOW, CLINICAL_WINDOW)
    assert "  1x1x1 (assumed)  " in TrainingData([(volume, None)], [], policy, []).describe([4])


def test_lung_share_counts_any_non_zero_voxel() -> None:
    mask = np.zeros((2, 5, 5), dtype=np.uint8)
    mask[0, :2] = 3
    assert lung_share(mask) == pytest.approx(10 / 50)


def test_micro_ct_is_sliced_across_all_axes(tmp_path: Path, files: tuple[str, str]) -> None:
    words = {"clinical_words": [files[0]], "micro_words": [files[1]]}
    found = open_data(tmp_path, **words, micro_axes="zyx")
    assert [volume.size for volume in found.micro] == [(40, 36, 3), (40, 3, 36), (36, 3, 40)]
    plain = open_data(tmp_path, **words).micro[0].array
    np.testing.assert_array_equal(found.micro[1].read_slice(5), plain[:, 5])
    np.testing.assert_array_equal(found.micro[2].read_slice(7), plain[:, :, 7])
    assert found.sources["micro"] == [files[1]]
    assert found.digests == open_data(tmp_path, **words).digests


def test_only_cubes_are_sliced_across_several_axes() -> None:
    volume = Volume(np.zeros((3, 4, 5), np.int16), np.diag([0.02, 0.02, 0.05, 1]), "slab.tif")
    with pytest.raises(UserError, match=r"slab\.tif has voxels of 0\.02 x 0\.02 x 0\.05 mm"):
        data.training_data.all_axes(volume, "zy")
    assert len(data.training_data.all_axes(volume, "z")) == 1
