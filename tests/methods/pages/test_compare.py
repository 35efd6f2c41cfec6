"""--compare: the results of one case in step, and nothing else."""

from __future__ import annotations

import errno
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from browser import Page
from method_helpers import MICRO_WINDOW, affines, lung_like, write_ct
from training_helpers import write_checkpoint

import medicaltest
from methods.pages.compare import PAGE, compared_images, measure, measures_table
from methods.pages.compared_results import check_same_case, named_folders, read_result
from util.errors import UserError, run_command_line


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders a and b with one case super-resolved by two models, ra and rb with it restored."""
    root = tmp_path_factory.mktemp("compare")
    ct = write_ct(root / "input" / "ct.nii.gz", lung_like((40, 32, 6)), affines()["lps"])
    other = write_ct(root / "input" / "other.nii.gz", lung_like((36, 32, 6)), affines()["lps"])
    # Another patient on the grid of the first.
    twin = write_ct(root / "input" / "twin.nii.gz", lung_like((40, 32, 6)) + 9, affines()["lps"])
    for seed, name in enumerate(("a", "b")):
        model = write_checkpoint(root / "models", name, seed=seed)
        common = ["--gpu_ids", "-1", "--checkpoint", str(model), "--page_mb", "0"]
        common += ["--backend", "torch"]
        for case, method, folder in (
            (ct, "smallpatchtest", name),
            (ct, "wholevolumetest", f"r{name}"),
            (ct, "microCTsmallpatchtest", f"m{name}"),
            (other, "smallpatchtest", f"other_{name}"),
            (twin, "smallpatchtest", f"twin_{name}"),
            (twin, "wholevolumetest", f"twin_r{name}"),
        ):
            words = ["--method", method, "--input", str(case), "--results_dir", str(root / folder)]
            if method.startswith("micro"):
                words += ["--windows", "micro=-5000:5000"]  # as wide, and it holds HU
            else:
                words += ["--region", "all"]
            assert run_command_line(medicaltest.main, [*common, *words]) == 0
    return root


def run(out: Path, *words: str) -> int:
    return run_command_line(medicaltest.main, ["--compare", *words, "--results_dir", str(out)])


def rows(browser: Page) -> list[list[str]]:
    return browser.run(
        "return [...document.querySelector('table:not(.facts)').rows].map((row) =>"
        "[...row.cells].map((cell) => cell.textContent))"
    )


@pytest.mark.slow
def test_two_results_stand_side_by_side(results: Path, tmp_path: Path, browser: Page) -> None:
    assert run(tmp_path, f"ours={results / 'a'}", str(results / "b")) == 0
    browser.open(tmp_path / PAGE)
    assert browser.run("return viewer.panes.map((pane) => pane.choice.value)") == ["ours", "b"]
    # Views are in step: one slider, one zoom, one crosshair.
    browser.run("viewer.goToSlice(4); document.querySelector('button').click()")
    places = browser.run(
        "return viewer.panes.map((pane) => [pane.nv.scene.pan2Dxyzmm[3],"
        "pane.nv.scene.crosshairPos[2].toFixed(4)])"
    )
    assert places[0] == places[1]
    browser.run("document.querySelector('[data-overlay=\"b - ours\"]').click()")
    browser.settle()
    text = browser.run("return document.getElementById('cursor').textContent")
    found = {
        name: float(value) for name, value in re.findall(r"(ours|b|b - ours) (-?\d+) HU", text)
    }
    assert found["b - ours"] == abs(found["b"] - found["ours"])
    table = rows(browser)
    assert table[0][0] == "result"
    assert [row[0] for row in table[1:]] == ["ours", "b"]
    assert table[1][1] == "1.00"  # as sharp as itself
    assert table[1][3] == "0.00"
    assert float(table[2][3]) > 0
    assert browser.errors() == []


def test_restored_results_stand_beside_the_truth_with_their_scores(
    results: Path, tmp_path: Path, browser: Page
) -> None:
    assert run(tmp_path, str(results / "ra"), str(results / "rb")) == 0
    browser.open(tmp_path / PAGE)
    assert browser.run("return viewer.panes.map((pane) => pane.choice.value)") == [
        "ra", "rb", "truth",
    ]  # fmt: skip
    table = rows(browser)
    assert table[0][1:3] == ["PSNR, dB", "SSIM"]
    for name, row in zip(("ra", "rb"), table[1:], strict=True):
        told = json.loads((results / name / "clinical_scores.json").read_text())["total"]["SR"]
        assert row[1] == f"{told['psnr']:.2f}"
        assert row[2] == f"{told['ssim']:.4f}"
    assert browser.errors() == []


def test_what_cannot_be_compared_is_refused(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = (
        ((str(results / "a"),), "got 1 result, expected two or more folders"),
        ((str(results / "a"), str(results / "other_b")), "differ in size or place"),
        ((str(results / "a"), str(results / "ra")), "made by different methods"),
        ((str(results / "a"), f"x={results / 'input'}"), "holds no result"),
        ((str(results / "a"), f"a={results / 'b'}"), "there is a a already"),
        *(
            ((str(results / "a"), f"{label}={results / 'b'}"), f"{label} is what the page calls")
            for label in ("input", "cubic", "truth", "a - truth")
        ),
        # Whichever comes first.
        (
            (str(results / "a"), f"b - a={results / 'b'}", str(results / "b")),
            "b - a is what the page calls",
        ),
        ((str(results / "a"), f"={results / 'b'}"), "got no label"),
        ((str(results / "a"), str(results / "twin_b")), "and their slice 3 differs"),
        ((str(results / "ra"), str(results / "twin_rb")), "and their slice 3 differs"),
        ((str(results / "ra"), str(results / "ma")), "were made by different methods"),
    )
    for words, message in cases:
        capsys.readouterr()
        assert run(tmp_path, *words) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1
    assert not (tmp_path / PAGE).exists()


def test_a_page_that_is_there_is_kept_unless_told_otherwise(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = str(results / "a"), str(results / "b")
    (tmp_path / PAGE).write_text("mine")
    assert run(tmp_path, *both) == 2
    assert "exists already: --overwrite replaces it" in capsys.readouterr().err
    assert (tmp_path / PAGE).read_text() == "mine"
    assert run(tmp_path, *both, "--overwrite") == 0
    assert "viewer-spec" in (tmp_path / PAGE).read_text()
    assert [path.name for path in tmp_path.iterdir()] == [PAGE]


def test_a_page_that_cannot_be_written_leaves_nothing(
    results: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both = str(results / "a"), str(results / "b")
    (tmp_path / PAGE).write_text("mine")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert run(tmp_path, *both, "--overwrite") == 2
    err = capsys.readouterr().err
    assert "No space left on device" in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == [PAGE]
    assert (tmp_path / PAGE).read_text() == "mine"
    # A file in the place of the folder.
    assert run(tmp_path / PAGE, *both) == 2
    assert (tmp_path / PAGE).read_text() == "mine"


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json cannot be read"):
        read_result("x", tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"window": None}, {"window": {"low": 1}}, {"window": {"low": "-1000", "high": 500}},
        {"window": {"low": 5, "high": 1}}, {"window": {"low": -1000, "high": float("nan")}},
        {"scale": "2"}, {"scale": None}, {"scale": 0}, {"scale": -2}, {"scale": 3}, {"scale": 2.5},
        {"scale": True}, {"outputs": 3}, {"outputs": []}, {"outputs": [5, None]},
        {"outputs": "SR.nii.gz"}, {"outputs": ["SR.nii.gz"]}, {"scores": 5}, {"scores": {"SR": 5}},
        {"scores": {"SR": {"psnr": None}}}, {"scores": {"SR": {"psnr": "high"}}},
    ],
    ids=str,
)  # fmt: skip
def test_a_record_without_what_is_needed_is_named(
    results: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    record = json.loads((results / "a" / "run.json").read_text()) | change
    (tmp_path / "run.json").write_text(json.dumps(record))
    for path in (results / "a").glob("*.nii.gz"):
        (tmp_path / path.name).symlink_to(path)
    with pytest.raises(UserError, match=r"run\.json cannot be read .* run it again"):
        read_result("x", tmp_path)


@pytest.mark.parametrize("record", ["", "null", "[]", "5", '"text"', "{}"])
def test_a_record_that_is_none_is_named(tmp_path: Path, record: str) -> None:
    (tmp_path / "run.json").write_text(record)
    with pytest.raises(UserError, match=r"run\.json cannot be read .* run it again"):
        read_result("x", tmp_path)


def test_a_scale_that_does_not_fit_the_volumes_is_named(results: Path) -> None:
    for name in ("a", "ra", "ma"):
        found = read_result(name, results / name)
        wrong = replace(found, label="x", scale=found.scale * 2)
        with pytest.raises(UserError, match=r"nii\.gz has the shape .* run it again"):
            check_same_case([found, wrong])


def test_a_volume_that_is_gone_is_named(results: Path, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes((results / "a" / "run.json").read_bytes())
    with pytest.raises(UserError, match=r"SR\.nii\.gz is gone"):
        read_result("x", tmp_path)


def test_labels(tmp_path: Path) -> None:
    assert named_folders(["x/one", "two=y"]) == [("one", Path("x/one")), ("two", Path("y"))]
    odd = tmp_path / "lr=1e-4"
    odd.mkdir()
    assert named_folders([str(odd), f"other={odd}"]) == [("lr=1e-4", odd), ("other", odd)]


def test_with_consistency_the_scores_are_those_of_the_written_volume(
    results: Path, tmp_path: Path
) -> None:
    for path in (results / "ra").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    record = json.loads((tmp_path / "clinical_run.json").read_text())
    record["scores"]["SR consistent"] = {"psnr": 77.0, "ssim": 0.5}
    (tmp_path / "clinical_run.json").write_text(json.dumps(record))
    assert read_result("x", tmp_path).scores["psnr"] == 77.0


def test_micro_ct_has_no_hu(results: Path, tmp_path: Path, browser: Page) -> None:
    assert run(tmp_path, str(results / "ma"), str(results / "mb")) == 0
    browser.open(tmp_path / PAGE)
    head = rows(browser)[0]
    assert head[-1] == "difference from ma"
    text = browser.run("return document.getElementById('cursor').textContent")
    assert "ma" in text
    assert "HU" not in text
    assert browser.errors() == []
    # The same share of the window as in the lung, where 20 HU of 1500 HU are the least shown.
    for name, least in (("m", (MICRO_WINDOW.high - MICRO_WINDOW.low) * 20 / 1500), ("r", 20)):
        both = [read_result(one, results / f"{name}{one}") for one in ("a", "b")]
        shown = compared_images(both)
        assert [overlay.low for overlay in shown.overlays] == pytest.approx([least, least])
        assert {overlay.unit for overlay in shown.overlays} == {shown.unit} == {both[0].unit}


def test_slices_of_air_have_no_sharpness(results: Path, tmp_path: Path) -> None:
    found = [read_result(name, results / name) for name in ("a", "b")]
    plain = measure(found)
    image = nib.Nifti1Image.from_filename(found[0].fine)
    voxels = np.asarray(image.dataobj).copy()
    for flat in ([2], range(voxels.shape[2])):
        voxels[:, :, flat] = -1000
        path = tmp_path / "flat.nii.gz"
        nib.save(nib.Nifti1Image(voxels, image.affine, image.header), path)
        values = measure([replace(found[0], fine=path), found[1]])
        told = measures_table(found, values).render()
        assert "nan" not in told
        assert ("<td>-</td>" in told) == (len(flat) > 1)
        assert values["a"]["sharpness"] == 1.0 or len(flat) > 1
        assert np.isnan(values["b"]["sharpness"]) == (len(flat) > 1)
    assert plain["b"]["sharpness"] > 0


def test_consistency_is_that_with_ones_own_input(results: Path, tmp_path: Path) -> None:
    found = [read_result(name, results / name) for name in ("ra", "rb")]
    image = nib.Nifti1Image.from_filename(found[1].coarse)
    path = tmp_path / "LR.nii.gz"
    brighter = np.asarray(image.dataobj) + 50
    nib.save(nib.Nifti1Image(brighter, image.affine, image.header), path)
    plain, changed = measure(found), measure([found[0], replace(found[1], coarse=path)])
    assert changed["ra"] == plain["ra"]
    assert changed["rb"]["consistency"] != plain["rb"]["consistency"]


def test_a_custom_name_of_the_result_is_found(results: Path, tmp_path: Path) -> None:
    record = json.loads((results / "a" / "run.json").read_text())
    record["outputs"] = ["/moved/fine.nii", "/moved/clinical.nii"]
    (tmp_path / "run.json").write_text(json.dumps(record))
    for name in ("fine.nii", "clinical.nii"):
        (tmp_path / name).touch()
    found = read_result("x", tmp_path)
    assert (found.fine, found.coarse) == (tmp_path / "fine.nii", tmp_path / "clinical.nii")
    assert found.truth is None
    assert np.isfinite(list(found.scores.values())).all()
