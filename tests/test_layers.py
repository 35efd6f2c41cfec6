"""Who may import whom, and other rules that hold over the whole source."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("options", "data", "models", "util", "methods", "training")
SCRIPTS = ("train.py", "medicaltest.py")
LONGEST_FILE = 350  # lines
MOST_MODULES = 14  # of a folder

# The scripts stand above the layers; train.py reaches data and models through training alone.
SCRIPTS_MAY_IMPORT = {
    "train.py": {"training", "options", "util"},
    "medicaltest.py": {"methods", "options", "util"},
}

# Layer -> layers of the project that it may import, besides itself.
MAY_IMPORT: dict[str, set[str]] = {
    "options": set(),
    "util": set(),
    "data": {"util"},
    "models": {"util"},
    "methods": {"data", "models", "util", "options"},
    "training": {"data", "models", "util", "options"},
}


def files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, first part of the module's name) of every import in a file, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            assert node.module is not None
            yield node.lineno, node.module.split(".")[0]


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_import_only_what_they_may(layer: str) -> None:
    allowed = MAY_IMPORT[layer] | {layer}
    forbidden = (set(LAYERS) - allowed) | {"train", "medicaltest", "tests", "scripts", "benchmarks"}
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in files(layer)
        for line, module in imports(path)
        if module in forbidden
    ]
    assert files(layer)
    assert found == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_import_only_what_they_may(script: str) -> None:
    found = {module for _, module in imports(ROOT / script)} - sys.stdlib_module_names
    assert found == SCRIPTS_MAY_IMPORT[script]


def test_options_import_the_standard_library_alone() -> None:
    allowed = sys.stdlib_module_names | {"options"}
    modules = {module for path in files("options") for _, module in imports(path)}
    assert modules - allowed == set()


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_import_nothing_slow_at_their_top(script: str) -> None:
    tree = ast.parse((ROOT / script).read_text(encoding="utf-8"))
    names = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name) or ""
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    roots = {name.split(".")[0] for name in names}
    assert roots - sys.stdlib_module_names <= {"options", "util"}


def test_packages_of_one_backend_are_imported_where_they_are_used() -> None:
    """A machine without them runs all else, and --help waits for neither."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in [*files(*LAYERS), *(ROOT / script for script in SCRIPTS)]
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        and ast.unparse(node).split()[1].split(".")[0] in ("openvino", "onnx", "zarr")
    ]
    assert found == []
    assert {"openvino", "onnx"} <= {
        module for path in files("models", "methods") for _, module in imports(path)
    }


def test_pytest_looks_for_tests_in_their_folder_alone() -> None:
    """options/test_options.py and options/test_options.py are none, whatever their names say."""
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'testpaths = ["tests"]' in settings
    for path in files("options"):
        defined = ast.parse(path.read_text(encoding="utf-8")).body
        assert [node for node in defined if getattr(node, "name", "").startswith("test")] == []


def test_the_picture_of_the_rooms_shows_the_imports_that_there_are() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    picture = text.split("```mermaid")[1].split("```")[0]
    drawn = set(re.findall(r"^ *(\w+)(?:\[[^\]]*\])? --> (\w+)$", picture, re.M))
    rooms = {room: files(room) for room in LAYERS}
    rooms |= {Path(script).stem: [ROOT / script] for script in ("train.py", "medicaltest.py")}
    found = {
        (room, module)
        for room, paths in rooms.items()
        for path in paths
        for _, module in imports(path)
        if module in LAYERS and module != room
    }
    assert drawn == found


def test_every_package_that_is_imported_is_required() -> None:
    """And every one that is required is imported. Optional ones are there for the tests."""

    def required(name: str) -> set[str]:
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        return {
            re.split(r"[<>=!~ ;\[]", line)[0].lower()
            for line in lines
            if line and not line.startswith("#")
        }

    requirements = required("requirements.txt")
    optional = {"zarr", "tensorboard"}
    assert optional <= required("requirements-dev.txt")
    requirements |= {"triton"}  # comes with torch for Linux, and is asked for on a GPU alone
    names = {"PIL": "pillow", "skimage": "scikit-image", "SimpleITK": "simpleitk"}
    found = {
        names.get(module, module).lower()
        for path in [*files(*LAYERS), *(ROOT / script for script in SCRIPTS)]
        for _, module in imports(path)
        if module not in sys.stdlib_module_names and module not in LAYERS
    }
    assert found - requirements <= optional
    # tifffile decodes with imagecodecs, and pages take ipyniivue's file.
    assert requirements - found <= {"imagecodecs", "ipyniivue"}


def test_the_scan_sees_imports_wherever_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "code.py"
    path.write_text("import a.b, c\ndef f():\n    from d.e import g\n", encoding="utf-8")
    assert sorted(imports(path)) == [(1, "a"), (1, "c"), (3, "d")]


def test_no_file_is_long() -> None:
    """A file over about 300 lines is two rooms. viewer.js, one program, is the one exception."""
    paths = [*files(*LAYERS), *(ROOT / script for script in SCRIPTS)]
    paths += [path for layer in LAYERS for path in (ROOT / layer).rglob("*.css")]
    paths += [path for layer in LAYERS for path in (ROOT / layer).rglob("*.js")]
    long = {
        path.relative_to(ROOT).as_posix()
        for path in paths
        if len(path.read_text(encoding="utf-8").splitlines()) > LONGEST_FILE
    }
    assert long <= {"util/pages/viewer.js"}


def test_no_folder_is_a_hall() -> None:
    folders = Counter(path.parent for path in files(*LAYERS) if path.name != "__init__.py")
    full = {str(folder.relative_to(ROOT)): n for folder, n in folders.items() if n > MOST_MODULES}
    assert full == {}


def module_graph(root: Path, paths: list[Path]) -> dict[str, set[str]]:
    """Module -> modules among `paths` that it imports, wherever in it the import stands."""

    def name_of(path: Path) -> str:
        parts = path.relative_to(root).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    known = {name_of(path) for path in paths}
    graph: dict[str, set[str]] = {}
    for path in paths:
        graph[name_of(path)] = found = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names} & known
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                inner = {f"{node.module}.{alias.name}" for alias in node.names} & known
                found |= inner or ({node.module} & known)
    return graph


def circle_in(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in turn, the first one repeated at the end; empty if none."""
    finished: set[str] = set()

    def walk(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module not in finished:
            for other in sorted(graph[module]):
                if circle := walk(other, [*path, module]):
                    return circle
            finished.add(module)
        return []

    return next((circle for module in sorted(graph) if (circle := walk(module, []))), [])


def test_no_modules_import_each_other_in_a_circle() -> None:
    paths = [*files(*LAYERS), *(ROOT / script for script in SCRIPTS)]
    assert circle_in(module_graph(ROOT, paths)) == []


def test_the_scan_sees_circles(tmp_path: Path) -> None:
    for name, text in (("a", "import c"), ("b", "from a import x"), ("c", "def f():\n import b")):
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    graph = module_graph(tmp_path, sorted(tmp_path.glob("*.py")))
    assert circle_in(graph) == ["a", "c", "b", "a"]
    assert circle_in({**graph, "c": set()}) == []


def test_tests_lie_where_the_code_lies() -> None:
    """tests/FOLDER/test_MODULE*.py, or test_FOLDER_MODULE*.py, tests FOLDER/MODULE.py."""
    astray = []
    for path in files(*(f"tests/{layer}" for layer in LAYERS)):
        folder = ROOT / path.parent.relative_to(ROOT / "tests")
        modules = [module.stem for module in folder.glob("*.py") if module.name != "__init__.py"]
        names = [*modules, *(f"{folder.name}_{module}" for module in modules)]
        told = path.stem.removeprefix("test_")
        if not any(told == name or told.startswith(f"{name}_") for name in names):
            astray.append(str(path.relative_to(ROOT)))
    assert astray == []


def tracked_files() -> list[Path]:
    """What git would keep, or all text files where this is no repository."""
    answer = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    names = answer.stdout.splitlines()
    return [ROOT / name for name in names] or [*files(*LAYERS, "tests"), *ROOT.glob("*.*")]


def test_no_path_of_one_machine_stands_anywhere() -> None:
    # Put together here, so that this file does not find itself.
    pattern = re.compile("|".join(["/" + "home/", "/" + "Users/", "/" + "work/", r"[A-Z]:\\\\Us"]))
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in tracked_files()
        if path.is_file() and path.suffix in {".py", ".sh", ".md", ".toml", ".yml", ".txt", ".lock"}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]
    assert found == []


def test_no_user_error_is_an_assertion() -> None:
    """`python -O` drops assertions, and an AssertionError names no remedy."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in [*files(*LAYERS), *(ROOT / script for script in SCRIPTS)]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assert)
    ]
    assert found == []


def test_checkpoints_are_never_unpickled_freely() -> None:
    calls = [
        (path, node)
        for path in [*files(*LAYERS, "scripts", "benchmarks"), *(ROOT / s for s in SCRIPTS)]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "pickle.load")
    ]
    assert calls
    for path, node in calls:
        assert "weights_only=True" in ast.unparse(node), f"{path}:{node.lineno}"


def test_test_files_have_names_of_their_own() -> None:
    """pytest imports them by base name, since the folders are no packages."""
    names = Counter(path.name for path in files("tests"))
    assert [name for name, count in names.items() if count > 1] == []
    assert "__init__.py" not in names
