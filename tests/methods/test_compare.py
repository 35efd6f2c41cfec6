"""--compare: the results of one case in step, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from browser import Page
from method_helpers import affines, lung_like, write_ct
from training_helpers import write_checkpoint

import medicaltest
from methods.compare import PAGE, named_folders, read_result
from util.errors import UserError, run_command_line


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders a and b with one case super-resolved by two models, ra and rb with it restored."""
    root = tmp_path_factory.mktemp("compare")
    ct = write_ct(root / "input" / "ct.nii.gz", lung_like((40, 32, 6)), affines()["lps"])
    other = write_ct(root / "input" / "other.nii.gz", lung_like((36, 32, 6)), affines()["lps"])
    for seed, name in enumerate(("a", "b")):
        model = write_checkpoint(root / "models", name, seed=seed)
        common = [
            "--gpu_ids",
            "-1",
            "--checkpoint",
            str(model),
            "--page_mb",
            "0",
            "--region",
            "all",
        ]
        for case, method, folder in (
            (ct, "smallpatchtest", name),
            (ct, "wholevolumetest", f"r{name}"),
            (other, "smallpatchtest", f"other_{name}"),
        ):
            words = ["--method", method, "--input", str(case), "--results_dir", str(root / folder)]
            assert run_command_line(medicaltest.main, [*common, *words]) == 0
    return root


def run(out: Path, *words: str) -> int:
    return run_command_line(medicaltest.main, ["--compare", *words, "--results_dir", str(out)])


def rows(browser: Page) -> list[list[str]]:
    return browser.run(
        "return [...document.querySelector('table:not(.facts)').rows].map((row) =>"
        "[...row.cells].map((cell) => cell.textContent))"
    )


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
        ((str(results / "a"), str(results / "ra")), "differ in size or place"),
        ((str(results / "a"), str(results / "input")), "holds no result"),
        ((str(results / "a"), f"a={results / 'b'}"), "there is a a already"),
    )
    for words, message in cases:
        capsys.readouterr()
        assert run(tmp_path, *words) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1
    assert not (tmp_path / PAGE).exists()
    (tmp_path / PAGE).write_text("mine")
    assert run(tmp_path, str(results / "a"), str(results / "b")) == 2
    assert (tmp_path / PAGE).read_text() == "mine"


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json cannot be read"):
        read_result("x", tmp_path)


def test_labels() -> None:
    assert named_folders(["x/one", "two=y"]) == [("one", Path("x/one")), ("two", Path("y"))]


def test_a_custom_name_of_the_result_is_found(results: Path, tmp_path: Path) -> None:
    record = json.loads((results / "a" / "run.json").read_text())
    record["outputs"] = ["/moved/fine.nii", "/moved/clinical.nii"]
    (tmp_path / "run.json").write_text(json.dumps(record))
    found = read_result("x", tmp_path)
    assert (found.fine, found.coarse) == (tmp_path / "fine.nii", tmp_path / "clinical.nii")
    assert found.truth is None
    assert np.isfinite(list(found.scores.values())).all()
