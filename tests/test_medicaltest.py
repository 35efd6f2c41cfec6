"""medicaltest.py in process, with networks of random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from method_helpers import corner_distance, read_nifti, soft_volume, write_ct
from training_helpers import (
    TINY_RUN,
    write_case,
    write_checkpoint,
    write_micro,
    write_training_data,
)

import medicaltest
import methods.inputs
import methods.loading
import train
from data.phantom.training_set import PhantomPaths
from data.windows import CLINICAL_WINDOW
from models.inference.super_resolver import SuperResolver
from models.networks import DownsamplingGenerator, SRGenerator
from util.errors import run_command_line
from util.images.resampling import enlarge


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def trained() -> Path:
    """A 2x model in the default place."""
    return write_checkpoint(Path("checkpoints"), "run")


@pytest.fixture
def ct(tmp_path: Path) -> str:
    return str(write_case(tmp_path / "input", "ct", (26, 22, 4)))


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run as the command does; returns the one line on standard error at exit code 2."""
    capsys.readouterr()
    assert run_command_line(medicaltest.main, ["--gpu_ids", "-1", *words]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert err.startswith("error: ")
    return err


def run(*words: str) -> None:
    # OpenVINO takes a second to trace the network, longer than most of these runs.
    words = ("--gpu_ids", "-1", "--backend", "torch", *words)
    assert run_command_line(medicaltest.main, list(words)) == 0


def enlarged(folder: str = "results") -> np.ndarray:
    return read_nifti(Path(folder) / "SR.nii.gz")[0]


# ---- which model ----


def test_the_model_trained_last_is_found_without_being_told(
    trained: Path, ct: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_checkpoint(Path("checkpoints"), "later", seed=3)
    run("--input", ct, "--backend", "auto")
    said = capsys.readouterr().out
    assert said.startswith("options\n")
    assert "model checkpoints/later/latest.pt (step 5), 2x, on cpu" in said
    assert sorted(path.name for path in Path("results").iterdir()) == [
        "SR.itksnap", "SR.nii.gz", "clinical.nii.gz", "index.html", "preview.png", "run.json",
    ]  # fmt: skip
    record = json.loads(Path("results/run.json").read_text(encoding="utf-8"))
    assert record["checkpoint"] == "checkpoints/later/latest.pt"


def test_training_then_testing_chain_without_a_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = write_training_data(tmp_path / "volumes")
    assert train.main([*TINY_RUN, *words, "--no_html", "--niter", "1", "--niter_decay", "0"]) == 0
    held_back = write_case(tmp_path / "held_back", "patient", (26, 22, 2), seed=5).parent
    micro = write_micro(tmp_path / "micro_test", "specimen", (26, 22, 2), seed=6).parent

    def generate(folder: Path, scale: int, progress: Any) -> PhantomPaths:
        return PhantomPaths(folder, tmp_path, tmp_path, held_back, micro)

    monkeypatch.setattr(methods.inputs, "generate_phantom", generate)
    run()
    assert enlarged().shape == (2, 44, 52)
    run("--method", "microCTsmallpatchtest")
    assert Path("results/micro_scores.csv").is_file()


def test_nothing_trained_yet(ct: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "--input", ct, "--sampling_times", "4")
    assert line == (
        "error: nothing has been trained yet in checkpoints: run `bash run.sh` first, or give "
        "--checkpoint FILE\n"
    )
    assert not Path("results").exists()


def test_before_any_training_the_projects_weights_super_resolve(
    ct: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run("--input", ct, "--backend", "auto")
    assert "using the weights that come with the project" in capsys.readouterr().out
    assert json.loads(Path("results/run.json").read_text())["scale"] == 8


@pytest.mark.slow
def test_bare_weights_of_the_original_code_work_with_a_note(
    ct: str, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(1)
    generator = SRGenerator(2, ngf=4, blocks=2)
    torch.save(generator.state_dict(), "latest_net_G_A.pth")
    run("--checkpoint", "latest_net_G_A.pth", "--input", ct, "--slices", ":1")
    said = capsys.readouterr().out
    assert "latest_net_G_A.pth states no intensity windows: using minmax normalization" in said
    assert "(bare weights), 4x" in said
    assert enlarged().shape == (1, 88, 104)
    run("--checkpoint", "latest_net_G_A.pth", "--input", ct, "--slices", ":1",
        "--windows", "clinical=-1000:500", "--results_dir", "windowed")  # fmt: skip
    assert not np.array_equal(enlarged(), enlarged("windowed"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("text.pt", "text.pt"),
        ("cut.pt", "cut.pt cannot be read as a checkpoint"),
        ("G_B.pth", "G_B.pth does not hold an SR generator"),
        ("missing.pt", "no checkpoint missing.pt: "),
        ("pickle.pt", "is not loaded, since it could run code"),
    ],
)
def test_wrong_checkpoints_are_refused(
    trained: Path, ct: str, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    Path("text.pt").write_text("no weights here", encoding="utf-8")
    Path("cut.pt").write_bytes(trained.read_bytes()[:5000])
    torch.save(DownsamplingGenerator(1, 4, 1).state_dict(), "G_B.pth")
    torch.save({"path": Path("x")}, "pickle.pt")
    assert message in refused(capsys, "--checkpoint", name, "--input", ct)


def test_another_scale_is_refused(
    trained: Path, ct: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, "--input", ct, "--sampling_times", "3")
    assert "enlarges 2 times, got --sampling_times 3 (8 times): leave it out" in line


# ---- which input ----


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--input", "nothing.nii.gz"), "nothing.nii.gz"),
        (("--input", "notes.txt"), "notes.txt"),
        (("--input", "broken.nii.gz"), "broken.nii.gz"),
        (("--input", "four.nii"), "four.nii"),
        (("--input", "{ct}", "--slices", "9:"), "holds no slice of a volume of 4"),
        (("--input", "{ct}", "--slices", "2"), "not of the form START:STOP"),
        (("--input", "{ct}", "--windows", "clinical=5:1"), "5:1 is empty"),
        (("--input", "{ct}", "--maskdatafolder", "nowhere"), "nowhere does not exist"),
    ],
)
def test_wrong_inputs_are_refused_in_one_line(
    trained: Path,
    ct: str,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    message: str,
) -> None:
    import nibabel as nib

    Path("notes.txt").write_text("not a volume", encoding="utf-8")
    Path("broken.nii.gz").write_bytes(Path(ct).read_bytes()[:300])
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4, 2), np.int16), np.eye(4)), "four.nii")
    assert message in refused(capsys, *(word.format(ct=ct) for word in words))
    assert not Path("results").exists()


@pytest.mark.slow
def test_an_existing_result_is_kept_unless_told(
    trained: Path, ct: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run("--input", ct, "--slices", "0:1")
    before = Path("results/SR.nii.gz").read_bytes()
    assert "exists already: --overwrite replaces it" in refused(capsys, "--input", ct)
    assert Path("results/SR.nii.gz").read_bytes() == before
    run("--input", ct, "--overwrite")
    assert enlarged().shape[0] == 4


# ---- what comes out ----


@pytest.mark.slow
def test_slices_region_and_patch_size(trained: Path, ct: str) -> None:
    run("--input", ct)
    whole = enlarged()
    run("--input", ct, "--slices", "-2:-1", "--results_dir", "one")
    np.testing.assert_array_equal(enlarged("one"), whole[2:3])

    run("--input", ct, "--region", "all", "--results_dir", "all")
    everywhere = enlarged("all")
    rim = np.s_[:, 16, :2]  # left of the mask, and inside the window
    cubic = enlarge(read_nifti(Path("results/clinical.nii.gz"))[0][0], 2, order=3)
    np.testing.assert_allclose(whole[0, 16, :2], cubic[16, :2], atol=0.51)
    assert not np.array_equal(everywhere[rim], whole[rim])

    run("--input", ct, "--region", "all", "--patch_size", "8", "--results_dir", "tiles")
    tiles = enlarged("tiles")
    assert tiles.shape == whole.shape
    assert not np.array_equal(tiles, everywhere)  # every tile has its own statistics


def test_the_networks_output_is_what_is_written(trained: Path, ct: str, tmp_path: Path) -> None:
    array = soft_volume((26, 22, 1), seed=8)
    path = write_ct(tmp_path / "soft.nii", array, np.diag([0.7, 0.7, 2.0, 1.0]))
    run("--input", str(path), "--region", "all")
    generator = methods.loading.load_generator(trained).generator
    image = array[0].astype(np.float32)
    unit = SuperResolver(generator, torch.device("cpu")).upscale_slice(
        CLINICAL_WINDOW.to_unit(image)
    )
    expected = CLINICAL_WINDOW.to_physical(unit)
    np.testing.assert_allclose(enlarged()[0], expected, atol=0.51)
    _, sr_image = read_nifti(Path("results/SR.nii.gz"))
    _, clinical_image = read_nifti(Path("results/clinical.nii.gz"))
    assert corner_distance(sr_image, clinical_image) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "domain"),
    [("microCTsmallpatchtest", "micro"), ("wholevolumetest", "clinical")],
)
def test_the_evaluations_can_be_reached_by_name(
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    method: str,
    domain: str,
) -> None:
    folder = tmp_path / "volumes"
    volume = {
        "micro": write_micro(folder, "specimen", (40, 36, 2)),
        "clinical": write_case(folder, "patient", (40, 36, 2)),
    }[domain]
    run("--method", method, "--input", str(volume))
    names = sorted(path.name for path in Path("results").iterdir())
    kinds = (
        "HR.nii.gz", "LR.nii.gz", "SR.nii.gz", "preview.png", "run.json", "scores.csv",
        "scores.json",
    )  # fmt: skip
    assert names == sorted([*(f"{domain}_{kind}" for kind in kinds), "index.html"])
    said = capsys.readouterr().out
    for word in ("PSNR (dB)", "SSIM", "SR ", "nearest ", "linear ", "cubic "):
        assert word in said


def test_training_volumes_are_refused_by_their_content(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = write_training_data(tmp_path / "volumes")
    assert train.main([*TINY_RUN, *words, "--no_html", "--niter", "1", "--niter_decay", "0"]) == 0
    capsys.readouterr()
    evaluate = ("--method", "microCTsmallpatchtest", "--input", words[3])
    assert "3 of 3 slices were trained on" in refused(capsys, *evaluate)
    run(*evaluate, "--allow_training_data")
    clinical = ("--method", "wholevolumetest", "--input", words[1])
    assert "3 of 3 slices were trained on" in refused(capsys, *clinical)
    run("--input", words[1], "--results_dir", "sr")  # super-resolving them is no evaluation


def test_a_cache_folder_of_ones_own(trained: Path, ct: str, tmp_path: Path) -> None:
    run("--input", ct, "--slices", ":1", "--cache_dir", str(tmp_path / "cache"))
    assert any((tmp_path / "cache").iterdir())


def test_debug_shows_where_an_error_came_from(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--gpu_ids", "-1", "--input", "nothing.nii", "--debug"]
    assert run_command_line(medicaltest.main, words) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert "\nerror: " in err
