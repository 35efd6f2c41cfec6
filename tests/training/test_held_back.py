from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from training_helpers import tiny_options, write_case, write_micro

from data.training_data import TrainingData, open_training_data
from data.volumes.volume import Volume
from data.writing.nifti_writer import write_volume
from models.scanner_model import FixedScanner
from training.held_back import (
    LARGEST_EDGE,
    SLICES,
    HeldBack,
    Sample,
    fingerprint,
    has_held_back,
    make_samples,
    most_lung,
    open_held_back,
    seen_by_scanner,
    squares,
)
from util.errors import UserError


def opened(clinical: Path, micro: Path | None, slices: str | None = None) -> TrainingData:
    return open_training_data(
        dataset_mode="unpaired" if micro else "public_2D",
        clinical_words=[str(clinical)],
        micro_words=[str(micro)] if micro else [],
        phantom_folder=Path("unused"),
        scale=2,
        cache_dir=None,
        mask_folder=None,
        spacing=None,
        slices=slices,
        normalization="window",
        window_words=None,
        stored_windows=None,
        say=print,
    )


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    clinical = write_case(tmp_path, "ct", (40, 36, 6))
    return clinical, write_micro(tmp_path, "specimen", (60, 52, 6))


def test_slices_at_one_end_are_held_back_of_the_training_volumes(
    files: tuple[Path, Path],
) -> None:
    options = tiny_options("--val_slices", "-2:")
    assert options.slices == ":-2"
    data = opened(*files, slices=options.slices)
    held_back = open_held_back(options, data, data.digests)
    assert [volume.num_slices for volume, _ in held_back.clinical] == [2]
    assert [volume.num_slices for volume in held_back.micro] == [2]
    assert held_back.micro[0].affine[2, 3] == pytest.approx(4 * 0.05)
    samples = make_samples(held_back, data, options)
    assert [sample.high is None for sample in samples] == [True, True, False, False]
    assert samples[0].low.shape == (36, 40)
    for sample in samples[2:]:
        assert sample.high is not None
        assert sample.high.shape == (52, 60)
        assert sample.low.shape == (26, 30)
        mean = sample.high.reshape(26, 2, 30, 2).mean(axis=(1, 3))
        np.testing.assert_allclose(sample.low, mean, atol=1e-6)
    window = data.windows.clinical
    assert samples[0].hu == (window.high - window.low) / 2


def test_only_named_data_is_held_back() -> None:
    assert not has_held_back(tiny_options())
    assert has_held_back(tiny_options("--val_slices", "-2:"))
    assert has_held_back(tiny_options("--val_micro_paths", "a.tif"))


def test_volumes_are_found_as_everywhere(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Folders and patterns, masks left out."""
    for name in ("ct2", "ct3"):
        write_case(tmp_path / "more", name, (40, 36, 4), seed=len(name))
    words = ("--val_clinical_paths", str(tmp_path / "more"), "--val_micro_paths", str(files[1]))
    found = open_held_back(tiny_options(*words), opened(*files), [])
    assert [volume.name for volume, _ in found.clinical] == ["ct2", "ct3"]


def test_what_is_trained_on_is_refused(files: tuple[Path, Path]) -> None:
    data = opened(*files)
    options = tiny_options("--val_micro_paths", str(files[1]), "--val_slices", "2:3")
    with pytest.raises(UserError, match=r"specimen\.nii holds slices that are trained on"):
        open_held_back(options, data, data.digests)
    assert open_held_back(options, data, []).micro  # an earlier part of a run counts, too


def test_what_the_window_misses_is_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Its scores would be infinite."""
    other = tmp_path / "fly.nii"
    write_volume(other, np.full((3, 52, 60), -200, np.int16), np.eye(4))
    options = tiny_options("--val_micro_paths", str(other))
    with pytest.raises(UserError, match=r"fly\.nii has values of -200 to -200, all outside"):
        open_held_back(options, opened(*files), [])


def test_scores_need_a_truth(files: tuple[Path, Path], tmp_path: Path) -> None:
    other = write_case(tmp_path / "other", "ct2", (40, 36, 4), seed=3)
    options = tiny_options("--val_clinical_paths", str(other))
    with pytest.raises(UserError, match="held-back micro-CT, got none: give --val_micro_paths"):
        open_held_back(options, opened(*files), [])
    options.dataset_mode = "public_2D"
    data = opened(files[0], None)
    held_back = open_held_back(options, data, data.digests)
    assert all(sample.high is not None for sample in make_samples(held_back, data, options))


def test_squares_are_spread_over_the_lung_and_lie_inside() -> None:
    array = np.zeros((30, 700, 90), dtype=np.int16)
    mask = np.zeros_like(array)
    mask[10:20, 600:690, 5:20] = 1
    volume = Volume(array, np.eye(4), "ct.nii")
    found = list(squares([(volume, mask), (volume, None)], 128, 8))
    assert len(found) == SLICES
    assert [square.index for square in found] == [10, 13, 16, 19, 0, 10, 19, 29]
    for square in found:
        row, column, height, width = square.corner
        assert (square.rows, square.columns) == (height, width)
        assert (height, width) == (128, 88)
        assert 0 <= row <= 700 - 128
        assert 0 <= column <= 90 - 88
    row, column, _, _ = found[0].corner
    assert row <= 600 <= 690 <= row + 128  # all of the lung
    assert column <= 5
    assert found[4].corner[:2] == (286, 1)  # in the middle


def test_squares_are_no_larger_than_memory_allows(files: tuple[Path, Path]) -> None:
    volume = Volume(np.zeros((3, 2000, 1500), dtype=np.int16), np.eye(4), "micro.nii")
    assert {square.corner[2:] for square in squares([(volume, None)], LARGEST_EDGE, 8)} == {
        (LARGEST_EDGE, LARGEST_EDGE)
    }


def test_shrunk_samples_are_seen_by_the_scanner_that_pseudo_pairs_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seeded: list[int] = []  # a resumed run has its GPUs' random states back by then
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    low = np.full((16, 16), -0.5, np.float32)
    high = low.repeat(2, axis=0).repeat(2, axis=1)
    samples = [Sample(low, high, 750.0), Sample(low, high, 750.0), Sample(low, None, 750.0)]
    state = torch.get_rng_state()
    scanner = FixedScanner(2, noise=0.04)
    first, second, clinical = seen_by_scanner(samples, scanner)
    assert torch.equal(torch.get_rng_state(), state)
    assert not seeded
    assert float((first.low - low).std()) == pytest.approx(0.04, rel=0.2)
    assert not np.array_equal(first.low, second.low)
    assert clinical is samples[2]
    torch.manual_seed(3)
    np.testing.assert_array_equal(seen_by_scanner(samples, scanner)[0].low, first.low)
    np.testing.assert_array_equal(seen_by_scanner(samples, FixedScanner(2))[0].low, low)


def test_squares_of_another_voxel_size_are_resampled() -> None:
    array = np.arange(40 * 60, dtype=np.int16).reshape(1, 40, 60)
    volume = Volume(array, np.diag([0.02, 0.02, 0.02, 1.0]), "micro.nii")
    (square,) = squares([(volume, None)], 512, 4, spacing=0.05)
    assert (square.rows, square.columns) == (16, 24)
    assert square.corner == (0, 0, 40, 60)
    assert square.read().shape == (16, 24)
    assert square.read().mean() == pytest.approx(array.mean(), rel=1e-5)


def test_a_square_lies_on_one_lung_not_between_both() -> None:
    section = np.zeros((512, 512), dtype=np.uint8)
    section[150:350, 60:200] = 1
    section[150:350, 310:460] = 1
    row, column = most_lung(section, 64, 64)
    assert section[row : row + 64, column : column + 64].all()
    assert most_lung(section, 512, 512) == (0, 0)


@pytest.mark.parametrize("count", [3, 40])
def test_no_more_squares_than_asked_for_however_many_volumes(count: int) -> None:
    volume = Volume(np.zeros((20, 64, 64), dtype=np.int16), np.eye(4), "micro.nii")
    assert len(list(squares([(volume, None)] * count, 32, 2))) == SLICES


def test_what_cannot_be_scored_is_refused(files: tuple[Path, Path]) -> None:
    options, data = tiny_options(), opened(*files)
    tiny = Volume(np.zeros((2, 8, 8), dtype=np.int16), np.eye(4), "tiny.nii")
    with pytest.raises(UserError, match="measures 4 pixels at low resolution, expected 6"):
        make_samples(HeldBack([], [tiny]), data, options)
    options.dataset_mode = "public_2D"
    empty = Volume(np.zeros((2, 64, 64), dtype=np.int16), np.eye(4), "ct.nii")
    with pytest.raises(UserError, match="no held-back slice shows lung"):
        make_samples(HeldBack([(empty, np.zeros((2, 64, 64)))], []), data, options)


def test_a_fingerprint_changes_with_what_is_scored(files: tuple[Path, Path]) -> None:
    def told(slices: str, *words: str) -> str:
        options = tiny_options("--val_slices", slices, *words)
        data = opened(*files, options.slices)
        return fingerprint(open_held_back(options, data, []), data, options)

    scanner = ("--lambda_pair", "1", "--scanner", "random")
    prints = [
        told("-2:"),
        told("-3:"),
        told("-2:", "--degradation", "zoom"),
        told("-2:", *scanner),
        told("-2:", *scanner, "--scanner_noise", "0", "0.05"),
    ]
    assert len(set(prints)) == len(prints)
    assert told("-2:", "--lr", "1e-3", "--scanner", "fixed") == prints[0]


def test_a_fingerprint_changes_with_the_pixels_that_images_are_brought_to(
    files: tuple[Path, Path],
) -> None:
    """Under --match_spacing another pixel size of the same file makes other images."""

    def told(*words: str, spacing: float | None = None) -> str:
        options, data = tiny_options("--val_slices", "-2:", *words), opened(*files)
        held_back = open_held_back(options, data, [])
        if spacing is not None:
            for volume in held_back.micro:
                volume.affine[:] = np.diag([spacing, spacing, 1, 1])
        return fingerprint(held_back, data, options)

    assert told("--match_spacing", spacing=0.3) != told("--match_spacing", spacing=0.2)
    assert told(spacing=0.3) == told(spacing=0.2) == told()
