from __future__ import annotations

import csv
import json
import math
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from method_helpers import (
    MICRO_WINDOW,
    SPACING,
    Forgetful,
    IdentityResolver,
    affines,
    as_resolver,
    block_means,
    corner_distance,
    quick_picture,
    read_nifti,
    soft_volume,
    stub_model,
    write_ct,
)
from option_helpers import evaluation_options
from writer_helpers import write_each_slice_at_once

import methods.inputs
import methods.restoration.method
import methods.restoration.scores
from data.formats.readers import read_volume
from data.patches import shrink
from data.volumes.volume import Volume
from data.windows import CLINICAL_WINDOW, WindowPolicy
from data.writing.nifti_writer import write_volume
from methods.registry import TEST_METHODS
from methods.restoration.method import (
    BASELINES,
    clinical_restoration,
    micro_restoration,
    output_names,
    restore_volume,
    stored_type,
)
from methods.restoration.shrunk_slices import RestorationSettings
from models.inference.super_resolver import SuperResolver
from options.presets import METHODS as METHOD_NAMES
from util.errors import UserError
from util.images.metrics import psnr, ssim
from util.images.pictures import comparison_picture
from util.images.resampling import enlarge

AFFINES = affines()
METHODS = ("SR", *BASELINES)
SIZE = (32, 28, 3)
MICRO_FILES = [*output_names("micro"), "micro_run.json"]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> IdentityResolver:
    stub = IdentityResolver()
    use(stub, monkeypatch)
    return stub


def use(
    stub: IdentityResolver, monkeypatch: pytest.MonkeyPatch, seen: frozenset[str] = frozenset()
) -> None:
    """Let `stub` stand in for a model that was trained on the slices `seen`."""
    monkeypatch.setattr(methods.inputs, "load_model", lambda o: stub_model(stub, o, seen))
    # Drawing takes longer than all else; one test below draws.
    monkeypatch.setattr(methods.restoration.method, "comparison_picture", quick_picture)


def micro_file(
    path: Path, size: tuple[int, int, int] = SIZE, affine: np.ndarray | None = None, seed: int = 0
) -> Path:
    x, y, z = size
    array = np.random.default_rng(seed).integers(500, 9000, (z, y, x)).astype(np.int16)
    write_volume(path, array, np.diag([0.05, 0.05, 0.05, 1.0]) if affine is None else affine)
    return path


def run(tmp_path: Path, *words: str) -> Path:
    folder = tmp_path / "results"
    method = ("--method", "microCTsmallpatchtest", "--results_dir", str(folder))
    micro_restoration(evaluation_options(*method, *words))
    return folder


def rows(folder: Path, domain: str = "micro") -> list[dict[str, str]]:
    with (folder / f"{domain}_scores.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def total(folder: Path, domain: str = "micro") -> dict[str, dict[str, Any]]:
    stored = json.loads((folder / f"{domain}_scores.json").read_text(encoding="utf-8"))
    found: dict[str, dict[str, Any]] = stored["total"]
    return found


def test_the_registry_holds_the_methods_of_the_option() -> None:
    assert tuple(TEST_METHODS) == tuple(METHOD_NAMES)


@pytest.mark.parametrize("size", [(1, 1, 1), (40, 1, 2), (10, 40, 1)])
def test_slices_smaller_than_the_window_of_ssim_are_refused_before_the_work(
    tmp_path: Path, resolver: IdentityResolver, size: tuple[int, int, int]
) -> None:
    path = micro_file(tmp_path / "small.nii", size)
    named = rf"SSIM got .*small\.nii of shape \({size[1]}, {size[0]}\) and needs"
    with pytest.raises(UserError, match=named):
        run(tmp_path, "--input", str(path))
    assert not resolver.inputs


@pytest.mark.parametrize("name", AFFINES)
def test_volumes_lie_in_the_same_place(
    tmp_path: Path, resolver: IdentityResolver, name: str
) -> None:
    resolver.scale = 4
    path = micro_file(tmp_path / "micro.nii", (32, 28, 2), AFFINES[name])
    folder = run(tmp_path, "--input", str(path))
    original, _ = read_nifti(path)
    high, high_image = read_nifti(folder / "micro_HR.nii.gz")
    low, low_image = read_nifti(folder / "micro_LR.nii.gz")
    restored, sr_image = read_nifti(folder / "micro_SR.nii.gz")
    np.testing.assert_array_equal(high, original)
    assert low.shape == (2, 7, 8)
    assert restored.shape == high.shape
    assert corner_distance(high_image, low_image) < 1e-3
    assert corner_distance(high_image, sr_image) < 1e-3
    for index, section in enumerate(high.astype(np.float32)):
        expected = shrink(section, 4, "area")
        np.testing.assert_allclose(low[index], expected, atol=0.51)
        np.testing.assert_allclose(restored[index], enlarge(expected, 4, 0), atol=0.51)


@pytest.mark.parametrize("size", [(33, 28, 2), (32, 29, 2), (35, 31, 1), (11, 13, 1)])
def test_nothing_is_dropped_at_borders_that_the_scale_does_not_divide(
    tmp_path: Path, resolver: IdentityResolver, size: tuple[int, int, int]
) -> None:
    resolver.scale = 4
    path = micro_file(tmp_path / "micro.nii", size)
    folder = run(tmp_path, "--input", str(path))
    x, y, z = size
    high, _ = read_nifti(folder / "micro_HR.nii.gz")
    low, low_image = read_nifti(folder / "micro_LR.nii.gz")
    restored, _ = read_nifti(folder / "micro_SR.nii.gz")
    assert restored.shape == high.shape == (z, y, x)
    assert low.shape == (z, math.ceil(y / 4), math.ceil(x / 4))
    # The last low-resolution pixel averages what is there, repeated to a whole block.
    edges = ((0, 0), (0, -y % 4), (0, -x % 4))
    padded = np.pad(high.astype(np.float32), edges, mode="edge")
    expected = np.stack([shrink(section, 4, "area") for section in padded])
    np.testing.assert_allclose(low, expected, atol=0.51)
    # The first pixel's corner is the volume's, so the last one reaches beyond it.
    np.testing.assert_allclose(low_image.affine[:2, 3], (0.075, 0.075), atol=1e-6)
    assert {row["pixels"] for row in rows(folder)} == {str(x * y)}


def test_scores_are_those_of_the_volumes(tmp_path: Path, resolver: IdentityResolver) -> None:
    path = micro_file(tmp_path / "micro.nii")
    folder = run(tmp_path, "--input", str(path))
    high = read_nifti(path)[0].astype(np.float32)
    table = rows(folder)
    assert list(table[0]) == ["slice", "method", "psnr", "ssim", "pixels"]
    assert [(row["slice"], row["method"]) for row in table] == [
        (str(index), method) for index in range(3) for method in METHODS
    ]
    errors: dict[str, list[float]] = {method: [] for method in METHODS}
    similarities: dict[str, list[float]] = {method: [] for method in METHODS}
    for index, section in enumerate(high):
        truth = MICRO_WINDOW.to_unit(section)
        small = shrink(truth, 2, "area")
        images = {
            "SR": enlarge(small, 2, 0),
            "nearest": enlarge(small, 2, 0),
            "linear": enlarge(small, 2, 1),
            "cubic": enlarge(small, 2, 3).clip(-1, 1),
        }
        for row in table[index * 4 : index * 4 + 4]:
            image = images[row["method"]]
            assert float(row["psnr"]) == pytest.approx(psnr(image, truth, 2.0), rel=1e-5)
            expected = ssim(image + 1, truth + 1, 2.0)
            assert float(row["ssim"]) == pytest.approx(expected, abs=1e-5)
            errors[row["method"]].append(float(np.mean((image - truth) ** 2, dtype=np.float64)))
            similarities[row["method"]].append(expected)
    summary = total(folder)
    assert list(summary) == list(METHODS)
    for method, row in summary.items():
        pooled = 10 * math.log10(4 / np.mean(errors[method]))
        assert row["psnr"] == pytest.approx(pooled, rel=1e-5)
        assert row["ssim"] == pytest.approx(np.mean(similarities[method]), abs=1e-5)
    # What stands on the screen and in the record is the same.
    record = json.loads((folder / "micro_run.json").read_text(encoding="utf-8"))
    assert record["scores"] == summary
    assert record["scored"] == "whole slices"
    assert record["data_range"] == 2.0
    assert record["window"] == MICRO_WINDOW.as_dict()


def test_degradation_is_chosen_by_flag(tmp_path: Path, resolver: IdentityResolver) -> None:
    path = micro_file(tmp_path / "micro.nii")
    area = total(run(tmp_path / "a", "--input", str(path)))
    zoom = total(run(tmp_path / "z", "--input", str(path), "--degradation", "zoom"))
    assert area != zoom
    low, _ = read_nifti(tmp_path / "z" / "results" / "micro_LR.nii.gz")
    unit = MICRO_WINDOW.to_unit(read_nifti(path)[0][0].astype(np.float32))
    expected = MICRO_WINDOW.to_physical(shrink(unit, 2, "zoom").clip(-1, 1))
    np.testing.assert_allclose(low[0], expected, atol=0.51)


def test_the_network_sees_the_shrunk_slice_alone(
    tmp_path: Path, resolver: IdentityResolver
) -> None:
    path = micro_file(tmp_path / "micro.nii")
    run(tmp_path, "--input", str(path), "--slices", "1:3")
    assert len(resolver.inputs) == 2
    assert resolver.scopes == [None, None]
    unit = MICRO_WINDOW.to_unit(read_nifti(path)[0][1].astype(np.float32))
    np.testing.assert_array_equal(resolver.inputs[0], shrink(unit, 2, "area"))


def test_every_file_is_written_and_named_on_screen(
    tmp_path: Path,
    resolver: IdentityResolver,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(methods.restoration.method, "comparison_picture", comparison_picture)
    folder = run(tmp_path, "--input", str(micro_file(tmp_path / "micro.nii")))
    assert sorted(p.name for p in folder.iterdir()) == sorted(MICRO_FILES)
    assert (folder / "micro_preview.png").stat().st_size > 2000
    said = capsys.readouterr().out
    assert "\nmicro: 3 slices, area degradation\nmethod " in said
    for name in output_names("micro"):
        assert str(folder / name) in said


# ---- clinical CT: wholevolumetest ----


def test_clinical_ct_is_scored_inside_the_lung(tmp_path: Path, resolver: IdentityResolver) -> None:
    array = soft_volume((24, 20, 4))
    mask = np.zeros_like(array)
    mask[1:3, 4:16, 4:20] = 1
    path = write_ct(tmp_path / "ct.nii.gz", array, AFFINES["lps"], mask)
    folder = tmp_path / "results"
    words = ("--method", "wholevolumetest", "--results_dir", str(folder), "--input", str(path))
    clinical_restoration(evaluation_options(*words))
    table = rows(folder, "clinical")
    assert {row["slice"] for row in table} == {"1", "2"}
    assert {row["pixels"] for row in table} == {str(12 * 16)}
    truth = CLINICAL_WINDOW.to_unit(array[1].astype(np.float32))
    restored = enlarge(shrink(truth, 2, "area"), 2, order=0)
    expected = psnr(restored, truth, 2.0, mask[1])
    assert float(table[0]["psnr"]) == pytest.approx(expected, rel=1e-5)
    record = json.loads((folder / "clinical_run.json").read_text(encoding="utf-8"))
    assert record["scored"] == "lung mask"
    assert len(resolver.inputs) == 4  # every slice is restored, though not every one is scored
    clinical_restoration(evaluation_options(*words, "--region", "all", "--overwrite"))
    assert len(rows(folder, "clinical")) == 4 * len(METHODS)


def test_lung_statistics_come_from_lung_on_the_low_resolution_grid(
    tmp_path: Path, resolver: IdentityResolver
) -> None:
    array = soft_volume((24, 20, 2))
    mask = np.zeros_like(array)
    mask[0, 4:16, 4:20] = 1
    path = write_ct(tmp_path / "ct.nii.gz", array, AFFINES["lps"], mask)
    words = ("--method", "wholevolumetest", "--results_dir", str(tmp_path / "out"))
    clinical_restoration(evaluation_options(*words, "--input", str(path)))
    with_lung, without = resolver.scopes
    assert with_lung is not None
    np.testing.assert_array_equal(with_lung != 0, mask[0, ::2, ::2] != 0)
    assert without is None


def test_slices_without_any_lung_are_refused_before_any_work(
    tmp_path: Path, resolver: IdentityResolver
) -> None:
    array = soft_volume((24, 20, 4))
    mask = np.zeros_like(array)
    mask[3, 4:16, 4:20] = 1
    path = write_ct(tmp_path / "ct.nii.gz", array, AFFINES["lps"], mask)
    words = ("--method", "wholevolumetest", "--results_dir", str(tmp_path / "out"))
    options = evaluation_options(*words, "--input", str(path), "--slices", ":3")
    with pytest.raises(UserError, match="no slice shows lung, so nothing would be scored: give"):
        clinical_restoration(options)
    assert not (tmp_path / "out").exists()


# ---- honesty ----


def test_a_consistent_result_is_scored_beside_the_plain_one_and_written(
    tmp_path: Path, resolver: IdentityResolver
) -> None:
    resolver.shift = 0.1  # 500 of the window's 10000; back-projection takes it away
    path = micro_file(tmp_path / "micro.nii")
    folder = run(tmp_path, "--input", str(path), "--consistency")
    summary = total(folder)
    assert list(summary) == ["SR", "SR consistent", *BASELINES]
    assert summary["SR consistent"]["psnr"] == pytest.approx(summary["nearest"]["psnr"], abs=1e-2)
    assert summary["SR"]["psnr"] < summary["SR consistent"]["psnr"] - 0.1
    low, restored = (read_nifti(folder / f"micro_{name}.nii.gz")[0] for name in ("LR", "SR"))
    np.testing.assert_allclose(block_means(restored, 2), low, atol=1.02)  # both are rounded


def test_an_ensemble_asks_the_network_eight_times_a_slice(
    tmp_path: Path, resolver: IdentityResolver
) -> None:
    path = micro_file(tmp_path / "micro.nii")
    plain = total(run(tmp_path / "plain", "--input", str(path)))
    assert len(resolver.inputs) == SIZE[2]
    averaged = total(run(tmp_path / "averaged", "--input", str(path), "--self_ensemble"))
    assert len(resolver.inputs) == SIZE[2] * 9
    assert averaged["SR"]["psnr"] == pytest.approx(plain["SR"]["psnr"], abs=1e-4)


# ---- training data ----


def test_training_slices_are_refused_and_can_be_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = micro_file(tmp_path / "micro.nii", (24, 20, 4))
    stub = IdentityResolver()
    digests = read_volume(path).slice_digests()
    use(stub, monkeypatch, frozenset(digests[2:]))
    message = "2 of 4 slices were trained on, expected unseen ones: choose others with --input"
    with pytest.raises(UserError, match=message):
        run(tmp_path, "--input", str(path))
    assert stub.inputs == []
    assert not (tmp_path / "results").exists()
    run(tmp_path / "held_back", "--input", str(path), "--slices", ":2")
    run(tmp_path / "allowed", "--input", str(path), "--allow_training_data")
    assert len(stub.inputs) == 2 + 4


def test_training_slices_are_known_in_any_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import SimpleITK

    path = micro_file(tmp_path / "micro.nii", (24, 20, 2))
    use(IdentityResolver(), monkeypatch, frozenset(read_volume(path).slice_digests()))
    copy = tmp_path / "renamed.nrrd"
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(path)), str(copy))
    with pytest.raises(UserError, match="2 of 2 slices were trained on"):
        run(tmp_path, "--input", str(copy))


# ---- results that are there, broken runs, several inputs ----


@pytest.mark.slow
@pytest.mark.parametrize("name", output_names("micro"))
def test_an_existing_result_is_refused_before_any_work(
    tmp_path: Path, resolver: IdentityResolver, name: str
) -> None:
    path = micro_file(tmp_path / "micro.nii")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / name).write_bytes(b"old")
    with pytest.raises(UserError, match=f"{name} exists already: --overwrite replaces it"):
        run(tmp_path, "--input", str(path))
    assert resolver.inputs == []
    run(tmp_path, "--input", str(path), "--overwrite")
    assert (tmp_path / "results" / name).read_bytes() != b"old"


def test_a_broken_run_leaves_nothing_that_looks_finished(
    tmp_path: Path, resolver: IdentityResolver
) -> None:
    path = micro_file(tmp_path / "micro.nii")
    resolver.fail_at = 2  # the middle slice, whose picture is shown, is done by then
    with pytest.raises(MemoryError):
        run(tmp_path, "--input", str(path))
    assert list(tmp_path.rglob("results/*")) == []
    resolver.fail_at = None
    run(tmp_path, "--input", str(path))


def test_several_inputs_are_scored_apart(tmp_path: Path, resolver: IdentityResolver) -> None:
    paths = [str(micro_file(tmp_path / f"{name}.nii", seed=len(name))) for name in ("a", "bb")]
    folder = run(tmp_path, "--input", *paths)
    assert sorted(p.name for p in folder.iterdir()) == ["a", "bb"]
    for name in ("a", "bb"):
        assert sorted(p.name for p in (folder / name).iterdir()) == sorted(MICRO_FILES)
    assert total(folder / "a") != total(folder / "bb")
    twin = micro_file(tmp_path / "other" / "a.nii")
    with pytest.raises(UserError, match="are both case a"):
        run(tmp_path / "again", "--input", paths[0], str(twin))


# ---- stored types and memory ----


@pytest.mark.parametrize(
    ("dtype", "slope", "expected"),
    [
        (np.uint8, 1.0, np.uint8),
        (np.int16, 1.0, np.int16),
        (">u2", 1.0, np.uint16),
        (np.int32, 1.0, np.float32),
        (np.uint8, 0.5, np.float32),
        (np.float32, 1.0, np.float32),
    ],
)
def test_volumes_are_written_in_a_type_that_holds_them(
    dtype: Any, slope: float, expected: type
) -> None:
    assert stored_type(np.dtype(dtype), slope, 0.0) == np.dtype(expected)


def test_uint16_micro_ct_keeps_its_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.random.default_rng(0).integers(0, 65535, (1, 24, 24)).astype(np.uint16)
    path = tmp_path / "micro.nii"
    write_volume(path, array, np.eye(4), dtype=np.uint16)
    stub = IdentityResolver()
    model = stub_model(stub, evaluation_options("--region", "all"))
    policy = WindowPolicy("window", CLINICAL_WINDOW, replace(MICRO_WINDOW, high=65535.0))
    monkeypatch.setattr(
        methods.inputs, "load_model", lambda options: replace(model, windows=policy)
    )
    monkeypatch.setattr(methods.restoration.method, "comparison_picture", quick_picture)
    folder = run(tmp_path, "--input", str(path))
    high, image = read_nifti(folder / "micro_HR.nii.gz")
    np.testing.assert_array_equal(high, array)
    assert image.get_data_dtype() == np.uint16
    restored, _ = read_nifti(folder / "micro_SR.nii.gz")
    assert restored.max() > 40000


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_each_slice_at_once(monkeypatch)
    monkeypatch.setattr(methods.restoration.method, "comparison_picture", quick_picture)
    monkeypatch.setattr(
        methods.restoration.scores, "ssim", lambda *images: 0.5
    )  # slow under tracing

    def peak(slices: int) -> int:
        volume = Volume(np.zeros((slices, 128, 128), np.int16), np.diag([*SPACING, 1.0]), "m.nii")
        resolver: SuperResolver = as_resolver(Forgetful(4))
        tracemalloc.start()
        try:
            settings = RestorationSettings("area", overwrite=True)
            restore_volume(volume, None, resolver, MICRO_WINDOW, tmp_path, "micro", settings)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(3)  # fills the caches
    few, many = peak(20), peak(100)  # 20 slices fill every stage of the pipeline
    # Rows of scores stay, and how full the stages are is chance: half of the least that 80 more
    # slices would take if one array of each stayed, as int16.
    assert many < few + 80 * (128 * 128 * 2) / 2
