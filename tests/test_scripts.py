"""scripts/check_requirements.py, scripts/env.sh and the shell scripts that source it.

The scripts run in a copied tree, with a stand-in for Python that only pretends to install.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import pytest

from scripts.check_requirements import main, missing, release

ROOT = Path(__file__).resolve().parents[1]
SHELL_SCRIPTS = (
    "run.sh", "test.sh", "check.sh", "scripts/env.sh", "scripts/make_wheels.sh", ".ci/run",
)  # fmt: skip
TOOLS = ("bash", "cat", "chmod", "cksum", "cp", "dirname", "mkdir", "mv", "rm")
SCRIPTS = ("env.sh", "make_wheels.sh", "check_requirements.py")
BASH = shutil.which("bash") or "bash"

# Answers as Python would to what env.sh asks; "installing" is a line in $FAKE_LOG.
STAND_IN = """#!{bash}
real={python}
case "$1 $2" in
    "--version "*) echo "Python ${{FAKE_VERSION:-3.12}}.0" ;;
    "-c "*) exec "$real" -c "import sys
sys.version_info = tuple(int(part) for part in '${{FAKE_VERSION:-3.12}}.0'.split('.'))
$2" ;;
    "- ") exec "$real" - ;;
    "-m venv")
        echo "venv" >>"$FAKE_LOG"
        "$real" -c 'import time; time.sleep(0.5)'
        mkdir -p "$4/bin" && cp "$0" "$4/bin/python" && echo 1 >"$4/made" ;;
    "-m pip")
        shift 2
        echo "pip $*" >>"$FAKE_LOG"
        case "$*" in *"${{FAKE_FAILS_AT:-nothing fails}}"*) echo "no network" >&2; exit 1 ;; esac ;;
    *check_requirements.py*)
        echo "missing: ${{FAKE_LACKS:-}}"
        shift
        for name in "$@"; do cat "$name" >/dev/null || exit 1; done
        [ -z "${{FAKE_LACKS:-}}" ] ;;
    *) echo "ran ${{1##*/}} ${{*:2}}" ;;
esac
"""


# ---- check_requirements.py ----


@pytest.mark.parametrize(
    ("version", "expected"),
    [("2.14.1+cpu", (2, 14, 1)), ("10", (10,)), ("1.0rc1", (1, 0)), ("2024.2.12", (2024, 2, 12)),
     ("unknown", ()), ("", ())],
)  # fmt: skip
def test_release_numbers(version: str, expected: tuple[int, ...]) -> None:
    assert release(version) == expected


def test_releases_are_compared_as_numbers() -> None:
    assert release("0.10") > release("0.9.9")
    assert release("2.14.1+cpu") >= release("2.14.1")


def test_what_is_installed_is_not_missing() -> None:
    assert missing(["numpy>=1.0", "numpy"]) == []
    found = metadata.version("numpy")
    assert missing(["numpy>=999"]) == [f"numpy>=999 (found {found})"]
    assert missing(["no-such-package-here>=1"]) == ["no-such-package-here>=1"]


def test_requirement_files_are_checked_line_by_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text("# a comment\n\nnumpy>=1.0\n  pytest>=2\n", encoding="utf-8")
    other = tmp_path / "other.txt"
    other.write_text("numpy>=999\n", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["check", str(path)])
    assert main() == 0
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(sys, "argv", ["check", str(path), str(other)])
    assert main() == 1
    assert capsys.readouterr().out.startswith("missing: numpy>=999 (found ")


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_the_projects_own_files_have_the_form_that_is_checked(name: str) -> None:
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            package, _, lowest = line.partition(">=")
            assert package.replace("-", "").replace("_", "").isalnum(), line
            assert release(lowest), line


def test_the_lock_pins_every_requirement_to_one_version() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8").lower()
    pinned = {line.partition("==")[0].replace("_", "-") for line in lock.splitlines()}
    for name in ("requirements.txt", "requirements-dev.txt"):
        for line in (ROOT / name).read_text(encoding="utf-8").lower().splitlines():
            if line and not line.startswith("#"):
                assert line.partition(">=")[0].replace("_", "-") in pinned | {"ipyniivue"}, line
    # Installed apart, without what a notebook would need.
    apart = re.search(r'VIEWER="ipyniivue==([\d.]+)"', (ROOT / "scripts/env.sh").read_text())
    assert apart is not None
    assert "ipyniivue" not in pinned
    assert "torch==2.14.1\n" in lock


# ---- the shell scripts ----


@pytest.mark.parametrize("name", SHELL_SCRIPTS)
def test_shell_scripts_are_well_formed(name: str) -> None:
    subprocess.run([BASH, "-n", str(ROOT / name)], check=True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing() -> None:
    words = ["shellcheck", "--external-sources", "--shell=bash", *SHELL_SCRIPTS]
    answer = subprocess.run(words, capture_output=True, encoding="utf-8", cwd=ROOT, check=False)
    assert answer.returncode == 0, answer.stdout


def test_scripts_can_be_started() -> None:
    for name in ("run.sh", "test.sh", "check.sh", ".ci/run"):
        assert os.access(ROOT / name, os.X_OK), name


Start = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the scripts, without any environment."""
    folder = tmp_path / "project with space"
    (folder / "scripts").mkdir(parents=True)
    files = [
        "run.sh",
        "test.sh",
        "check.sh",
        "requirements.txt",
        "requirements-dev.txt",
        "requirements.lock",
    ]
    for name in (*files, *(f"scripts/{name}" for name in SCRIPTS)):
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture
def start(project: Path, tmp_path: Path) -> Start:
    """Run a script of the copy with nothing on PATH but the stand-in and a few tools."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, tool
        (tools / tool).symlink_to(found)
    python = tools / "python3"
    python.write_text(STAND_IN.format(bash=BASH, python=sys.executable), encoding="utf-8")
    python.chmod(0o755)

    def run(
        script: str, *words: str, cwd: Path = project, **settings: str
    ) -> subprocess.CompletedProcess[str]:
        variables = {"PATH": str(tools), "FAKE_LOG": str(tmp_path / "log"), **settings}
        return subprocess.run(
            [BASH, str(project / script), *words],
            capture_output=True, encoding="utf-8", cwd=cwd, env=variables, check=False,
        )  # fmt: skip

    return run


def log(tmp_path: Path) -> list[str]:
    """What was "installed" since the last look."""
    path = tmp_path / "log"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


def active(tmp_path: Path) -> str:
    """A folder as an activated environment has it, with the stand-in as its Python."""
    (tmp_path / "active" / "bin").mkdir(parents=True, exist_ok=True)
    shutil.copy(tmp_path / "bin" / "python3", tmp_path / "active" / "bin" / "python")
    return str(tmp_path / "active")


def test_the_first_start_installs_once_and_says_so_in_one_line(
    start: Start, project: Path, tmp_path: Path
) -> None:
    answer = start("run.sh", "--name", "a b")
    assert (answer.returncode, answer.stdout) == (0, "ran train.py --name a b\n")
    (line,) = answer.stderr.splitlines()
    assert line.startswith(
        "installing the packages of requirements.lock into .venv with Python 3.12"
    )
    installs = log(tmp_path)
    assert installs[0] == "venv"
    assert len(installs) == 3  # Python 3.12 takes visdom's wheel
    assert installs[1].endswith(f"-r {project}/requirements.lock")
    assert "--no-deps ipyniivue==" in installs[2]
    assert (project / ".venv" / ".complete").is_file()

    answer = start("run.sh")
    assert (answer.stdout, answer.stderr) == ("ran train.py \n", "")
    assert log(tmp_path) == []


def test_of_two_first_starts_the_second_waits(start: Start, project: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(start, ["run.sh", "test.sh", "run.sh"]))
    assert [answer.returncode for answer in answers] == [0, 0, 0]
    assert len(log(tmp_path)) == 3  # one installation
    told = "".join(answer.stderr for answer in answers)
    assert told.count("installing the packages") == 1
    waiting = "waiting for another start, which installs .venv\n"
    assert told.replace(waiting, "").count("\n") == 1


@pytest.mark.parametrize("version", ["3.10", "3.11"])
def test_older_pythons_build_visdom_first(start: Start, tmp_path: Path, version: str) -> None:
    assert start("run.sh", FAKE_VERSION=version).returncode == 0
    _, tools, visdom, lock, _ = log(tmp_path)
    assert "setuptools<81" in tools
    assert "--no-build-isolation" in visdom
    assert visdom.endswith("visdom==0.2.4")
    assert lock.endswith("requirements.lock")


@pytest.mark.parametrize("variable", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_an_active_environment_that_fulfils_is_used_as_it_is(
    start: Start, project: Path, tmp_path: Path, variable: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for cwd in (project, elsewhere):
        answer = start("run.sh", "--debug", cwd=cwd, **{variable: active(tmp_path)})
        assert (answer.stdout, answer.stderr) == ("ran train.py --debug\n", "")
    assert log(tmp_path) == []
    assert not (project / ".venv").exists()


def test_an_active_environment_that_lacks_something_is_left_alone(
    start: Start, project: Path, tmp_path: Path
) -> None:
    answer = start("run.sh", VIRTUAL_ENV=active(tmp_path), FAKE_LACKS="torch")
    assert answer.stdout == "ran train.py \n"
    assert answer.stderr.startswith("installing the packages")
    assert (project / ".venv" / ".complete").is_file()
    assert not (tmp_path / "active" / "made").exists()


def test_an_active_environment_of_an_old_python_is_left_alone(
    start: Start, project: Path, tmp_path: Path
) -> None:
    folder = Path(active(tmp_path)) / "bin" / "python"
    folder.write_text(f"#!{BASH}\nexit 1\n", encoding="utf-8")
    assert start("run.sh", VIRTUAL_ENV=str(tmp_path / "active")).returncode == 0
    assert (project / ".venv" / "made").exists()


def test_a_half_finished_installation_is_repaired(
    start: Start, project: Path, tmp_path: Path
) -> None:
    answer = start("run.sh", FAKE_FAILS_AT="requirements.lock")
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert answer.stderr.splitlines()[-1] == (
        "error: installing packages failed (see above): check network and disk, and run this again"
    )
    assert not (project / ".venv" / ".complete").exists()
    assert len(log(tmp_path)) == 2
    answer = start("run.sh")
    assert answer.returncode == 0
    assert len(answer.stderr.splitlines()) == 1
    # What the first attempt left is not trusted: the environment is made anew, then filled.
    made, install, _ = log(tmp_path)
    assert made == "venv"
    assert install.endswith("requirements.lock")
    assert (project / ".venv" / ".complete").is_file()


def test_a_folder_of_wheels_takes_the_place_of_the_network(
    start: Start, project: Path, tmp_path: Path
) -> None:
    (project / "wheels").mkdir()
    assert start("run.sh", FAKE_VERSION="3.11").returncode == 0
    made, *installs = log(tmp_path)
    assert made == "venv"
    assert len(installs) == 4
    for line in installs:
        assert f"--no-index --find-links {project}/wheels " in line


def test_wheels_of_another_machine_are_told(start: Start, project: Path) -> None:
    (project / "wheels").mkdir()
    answer = start("run.sh", FAKE_FAILS_AT="requirements.lock")
    assert answer.returncode == 2
    assert answer.stderr.splitlines()[-1] == (
        "error: installing packages failed (see above): make wheels/ with this system and "
        "Python, and run this again"
    )


@pytest.mark.parametrize(("version", "built"), [("3.11", 1), ("3.12", 0)])
def test_wheels_are_collected_whole_or_not_at_all(
    start: Start, project: Path, tmp_path: Path, version: str, built: int
) -> None:
    wheels = project / "wheels"
    answer = start("scripts/make_wheels.sh", FAKE_VERSION=version, FAKE_FAILS_AT="ipyniivue==")
    assert (answer.returncode, wheels.exists()) == (2, False)
    assert "error: collecting ipyniivue==" in answer.stderr
    log(tmp_path)
    answer = start("scripts/make_wheels.sh", FAKE_VERSION=version)
    assert answer.returncode == 0, answer.stderr
    assert wheels.is_dir()
    assert not (project / "wheels.partial").exists()
    made, *calls = log(tmp_path)
    assert made == "venv"
    assert sum(line.endswith("visdom==0.2.4") for line in calls) == built
    assert sum("requirements.lock" in line for line in calls) == 1
    assert not (project / ".venv").exists()  # nothing is installed on this machine

    answer = start("scripts/make_wheels.sh", FAKE_VERSION=version)
    assert answer.returncode == 2
    assert "wheels exists" in answer.stderr


def test_a_viewer_that_cannot_be_had_is_named(start: Start, project: Path) -> None:
    answer = start("run.sh", FAKE_FAILS_AT="ipyniivue==")
    assert answer.returncode == 2
    assert "error: installing ipyniivue==" in answer.stderr
    assert not (project / ".venv" / ".complete").exists()


def test_visdom_that_cannot_be_built_is_named(start: Start, project: Path) -> None:
    answer = start("run.sh", FAKE_VERSION="3.11", FAKE_FAILS_AT="visdom==")
    assert answer.returncode == 2
    assert "error: installing visdom failed (see above)" in answer.stderr
    assert not (project / ".venv" / ".complete").exists()


def test_a_changed_lock_installs_again(start: Start, project: Path, tmp_path: Path) -> None:
    start("run.sh")
    log(tmp_path)
    with (project / "requirements.lock").open("a", encoding="utf-8") as stream:
        stream.write("another==1.0\n")
    answer = start("run.sh")
    assert answer.stderr.startswith("installing the packages")
    assert len(log(tmp_path)) == 2
    assert start("run.sh").stderr == ""


def test_an_environment_whose_python_is_gone_is_made_anew(
    start: Start, project: Path, tmp_path: Path
) -> None:
    start("run.sh")
    log(tmp_path)
    (project / ".venv" / "bin" / "python").unlink()
    assert start("run.sh").returncode == 0
    assert log(tmp_path)[0] == "venv"


@pytest.mark.parametrize("version", ["3.9", "3.14"])
def test_without_a_fitting_python_one_line_says_so(
    start: Start, project: Path, version: str
) -> None:
    answer = start("run.sh", FAKE_VERSION=version)
    assert answer.returncode == 2
    assert answer.stderr == (
        f"error: no Python from 3.10 to 3.13 found (python3 is Python {version}.0): install one "
        "and run this again\n"
    )
    assert not (project / ".venv").exists()


def test_the_test_script_needs_no_training_before(start: Start, project: Path) -> None:
    assert not (project / "checkpoints").exists()
    assert start("test.sh").stdout == "ran medicaltest.py \n"
    assert start("test.sh", "--help").stdout == "ran medicaltest.py --help\n"


def test_the_exit_code_of_the_program_is_passed_on(
    start: Start, project: Path, tmp_path: Path
) -> None:
    folder = active(tmp_path)
    python = Path(folder) / "bin" / "python"
    text = python.read_text(encoding="utf-8").replace('*) echo "ran', '*) exit 7; echo "ran')
    python.write_text(text, encoding="utf-8")
    assert start("run.sh", VIRTUAL_ENV=folder).returncode == 7


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "-m not slow"),
        (["-k", "windows"], "-m not slow -k windows"),
        (["--all"], "--cov --cov-report=term:skip-covered --cov-fail-under=85"),
        (["--all", "-k", "windows"], "-k windows"),
    ],
)
def test_the_tiers_of_the_tests(start: Start, tmp_path: Path, words: list[str], told: str) -> None:
    """The floor of the coverage holds for all tests, which a part of them could not reach."""
    answer = start("check.sh", *words, VIRTUAL_ENV=active(tmp_path))
    assert answer.returncode == 0, answer.stderr
    lint, form, types, tests = answer.stdout.splitlines()
    assert (lint, form, types) == (
        "ran -m ruff check .",
        "ran -m ruff format --check .",
        "ran -m mypy",
    )
    assert tests == f"ran -m pytest --numprocesses logical --maxprocesses 4 {told}"
