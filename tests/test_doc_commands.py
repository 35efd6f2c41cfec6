"""Every command of the documentation: run here, or marked with the reason why not, and well formed.

A block of bash in README.md or docs/ is run by a test, or the line above it says
`<!-- not run by the tests: REASON -->`. Either way its flags must be such that the scripts take.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from dicom_helpers import CORNER, chest, ct_slice

from data.formats.readers import read_volume
from options import TestOptions, TrainOptions

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
MARK = "<!-- not run by the tests: "
BLOCK = re.compile(r"(?:^(?P<before>[^\n]*)\n)?^ *```bash\n(?P<content>.*?)^ *```", re.S | re.M)

# Blocks that tests/test_commands.py and tests/test_tutorial.py run.
RUN_ELSEWHERE = (
    "bash run.sh      # sets everything up",
    "python medicaltest.py --method microCTsmallpatchtest\n",
    "bash scripts/tutorial.sh\n",
)
# Blocks that take a second or two and are run below, in the project's folder.
RUN_HERE = (
    "bash test.sh --help\n",
    "bash run.sh --help\n",
    "bash run.sh --list\n",
    "bash run.sh --summary --preset paper --batch_size 1\n",
    'python -c "from util.disk.cache_folder import default_cache_dir',
    'python -c "from models.checkpoints.shipped_weights import read_weights',
)


def blocks() -> list[tuple[str, str, str]]:
    """(page, line above, content) of every block of bash."""
    found = []
    for page in PAGES:
        for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
            found.append((page.name, (match["before"] or "").strip(), match["content"]))
    return found


def commands(content: str) -> list[list[str]]:
    """Commands of a block as words; what the block assigns is put in, all else stays as written."""
    joined = re.sub(r"\\\n", " ", re.sub(r"<<'(\w+)'\n.*?^\1$", "", content, flags=re.S | re.M))
    lines = [re.sub(r"(^|\s)#.*", "", line).strip() for line in joined.splitlines()]
    for name, value in re.findall(r'^([A-Z_]+)="(.*)"$', "\n".join(lines), re.M):
        lines = [re.sub(rf"\${name}\b", value, line) for line in lines]
    return [shlex.split(line) for line in lines if line]


BLOCKS = blocks()


def test_there_are_blocks() -> None:
    assert len(BLOCKS) > 40


NAMES = [f"{page}:{content.splitlines()[0].strip()[:50]}" for page, _, content in BLOCKS]


@pytest.mark.parametrize(("page", "before", "content"), BLOCKS, ids=NAMES)
def test_a_block_is_run_or_says_why_not(page: str, before: str, content: str) -> None:
    plain = "".join(line.strip() + "\n" for line in content.splitlines())
    is_run = any(start in plain for start in (*RUN_ELSEWHERE, *RUN_HERE))
    reason = before.removeprefix(MARK).removesuffix("-->").strip()
    assert is_run != before.startswith(MARK), f"{page}: run it, or say why not:\n{content}"
    assert is_run or len(reason) > 10


@pytest.mark.parametrize(
    "words",
    [words for _, _, content in BLOCKS for words in commands(content)],
    ids=lambda words: " ".join(words)[:60],
)
def test_the_scripts_take_the_flags(words: list[str], tmp_path: Path) -> None:
    # What stands before a program: assignments, torchrun with its own flags.
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    if not words or words[0] in ("for", "done", "kinds=(healthy", "source", "itksnap", "git"):
        return
    program = next((word for word in words[:4] if word.endswith((".py", ".sh"))), "")
    flags = words[words.index(program) + 1 :] if program else []
    if program.endswith(("run.sh", "train.py")):
        if "--help" in flags or "--list" in flags:
            return
        if "--continue_train" in flags:  # needs an experiment that is there
            TrainOptions().build().parse_args(flags)
        else:
            TrainOptions().parse(flags, lambda: 0)
    elif program.endswith(("test.sh", "medicaltest.py")):
        if "--help" not in flags:
            numbers = [re.sub(r"^\$SLURM_ARRAY_TASK_ID$", "3", word) for word in flags]
            TestOptions().parse(numbers)
    elif program:
        assert (ROOT / program).is_file(), program
    elif "-m" in words:
        module = words[words.index("-m") + 1]
        assert importlib.util.find_spec(module) is not None, module
    else:
        assert words[0] in ("python", "-", "bash"), words


@pytest.mark.slow
@pytest.mark.parametrize("start", RUN_HERE)
def test_a_quick_command_runs(start: str) -> None:
    (content,) = {c for _, _, c in BLOCKS if start in c}
    for words in commands(content):
        if words[0] == "bash":
            script = {"run.sh": "train.py", "test.sh": "medicaltest.py"}[words[1]]
            words = [sys.executable, script, *words[2:]]
        elif words[0] == "python":
            words = [sys.executable, *words[1:]]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout


def script(page: str, end: str) -> str:
    """A Python script that a page has between <<'END' and END."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    (found,) = re.findall(rf"<<'{end}'\n(.*?)^{end}$", text, re.S | re.M)
    return str(found)


def run_script(content: str, *words: str, place: Path = ROOT) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(place)}
    return subprocess.run(
        [sys.executable, "-", *words], input=content, cwd=ROOT, env=variables, text=True,
        capture_output=True, check=False,
    )  # fmt: skip


def test_mixed_dicom_is_sorted_into_series(tmp_path: Path) -> None:
    for number, name in enumerate(("A", "B")):  # names that collide, as those of DICOMDIRs do
        for index, section in enumerate(chest()):
            header = ct_slice(section, index, f"1.2.{index % 2}")
            header.ImagePositionPatient = [*CORNER[:2], CORNER[2] + 100 * number]
            path = tmp_path / "mixed" / name / f"IM{index}"
            path.parent.mkdir(parents=True, exist_ok=True)
            header.save_as(path, enforce_file_format=True)
    (tmp_path / "mixed" / "notes.txt").write_text("no DICOM")
    words = (str(tmp_path / "mixed"), str(tmp_path / "sorted"))
    assert run_script(script("data.md", "SORT"), *words).returncode == 0
    found = {one.name: len(list(one.iterdir())) for one in (tmp_path / "sorted").iterdir()}
    assert found == {"1.2.0": 4, "1.2.1": 4}
    again = run_script(script("data.md", "SORT"), *words)
    assert again.returncode == 1
    assert "is there twice, as" in again.stderr


def test_an_array_of_hdf5_becomes_a_tiff_that_is_read(tmp_path: Path) -> None:
    voxels = np.arange(3 * 8 * 9, dtype=np.uint16).reshape(3, 8, 9)
    np.savez(tmp_path / "scan.npz", **{"exchange/data": voxels})  # type: ignore[arg-type]
    # h5py's part of the script: a file is a mapping of arrays, opened by `with`.
    (tmp_path / "h5py.py").write_text("import numpy\nFile = numpy.load\n")
    words = (str(tmp_path / "scan.npz"), "exchange/data", str(tmp_path / "lung.tif"), "0.02")
    done = run_script(script("data.md", "CONVERT"), *words, place=tmp_path)
    assert done.returncode == 0, done.stderr
    volume = read_volume(tmp_path / "lung.tif", tmp_path / "cache")
    np.testing.assert_array_equal(volume.array, voxels)
    assert volume.spacing == pytest.approx((0.02, 0.02, 0.02))
