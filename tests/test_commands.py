"""The README's own commands, in fresh processes and an empty folder, one after the other."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
# Appended to the README's `bash run.sh`, which would take minutes: few steps of a narrow network.
FEW_STEPS = " --batch_num 2 --ngf 8 --ndf 4"


def readme_commands() -> list[str]:
    """Commands of the section that promises two of them, without their comments."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## Two commands")[1]
    section = section.split("\n## ")[0]
    blocks = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    # `run` does what the line that activates the environment does.
    return [line for line in lines if line and line != "source .venv/bin/activate"]


def run(command: str, folder: Path) -> str:
    """Run a README command from `folder`; its scripts are the project's."""
    words = command.replace("bash ", f"bash {ROOT}/").replace("python ", f"python {ROOT}/")
    # The README's python is the environment's.
    environment = {**os.environ, "PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}"}
    environment.pop("PYTEST_XDIST_WORKER", None)
    done = subprocess.run(
        ["bash", "-c", words], cwd=folder, env=environment, capture_output=True, encoding="utf-8",
        timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.commands
def test_the_readmes_commands_run_one_after_the_other(tmp_path: Path) -> None:
    commands = readme_commands()
    assert commands == [
        "bash run.sh",
        "bash test.sh",
        "python medicaltest.py --method microCTsmallpatchtest",
    ]
    trained = run(commands[0] + FEW_STEPS, tmp_path)
    assert "preset demo on cpu, from " in trained or "preset adapt on cuda, from " in trained
    run(commands[1], tmp_path)
    scored = run(commands[2], tmp_path)
    results = tmp_path / "results"
    enlarged, clinical = (nib.load(results / name) for name in ("SR.nii.gz", "clinical.nii.gz"))
    assert enlarged.shape == (224 * 8, 192 * 8, 3)  # type: ignore[attr-defined]
    assert clinical.shape == (224, 192, 3)  # type: ignore[attr-defined]
    assert (results / "preview.png").is_file()
    scores = json.loads((results / "micro_scores.json").read_text(encoding="utf-8"))["total"]
    assert list(scores) == ["SR", "nearest", "linear", "cubic"]
    assert all(np.isfinite(row["psnr"]) for row in scores.values())
    assert re.search(r"^cubic +\d+\.\d\d +\d\.\d{4}$", scored, re.MULTILINE)
    assert not list(results.glob("*.partial"))
    assert (results / "index.html").stat().st_size > 1_000_000
    told = run("bash scripts/tutorial.sh", tmp_path)
    steps = ["== 1 of 3.", "dry run", "== 2 of 3.", "== 3 of 3. Look at it"]
    assert [step for step in steps if step in told] == [steps[0], *steps[2:]]
    tutorial = results / "tutorial"
    assert {path.name for path in tutorial.iterdir()} == {
        "SR.nii.gz", "clinical.nii.gz", "SR.itksnap", "SR_dicom", "preview.png", "run.json",
        "index.html",
    }  # fmt: skip
    assert len(list((tutorial / "SR_dicom").iterdir())) == 2
