"""Imports go one way, and importing raynas loads neither torch nor ray."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for top in ("raynas", "search_spaces", "jobs") for path in (ROOT / top).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """The modules that a file names in its imports, wherever they stand."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def names(path: Path, *packages: str) -> set[str]:
    return {module for module in imported(path) if module.split(".")[0] in packages}


def test_only_the_distributed_package_and_jobs_import_ray() -> None:
    allowed = (ROOT / "raynas" / "distributed", ROOT / "jobs")
    users = {path for path in FILES if names(path, "ray")}
    assert users and all(any(place in path.parents for place in allowed) for path in users)


def test_the_library_names_neither_spaces_nor_jobs() -> None:
    assert not [path for path in FILES if ROOT / "raynas" in path.parents and names(path, "search_spaces", "jobs")]


def test_a_search_space_needs_only_the_description_of_spaces_and_supernets() -> None:
    allowed = {"raynas.architecture", "raynas.elastic", "raynas.space", "raynas.stabiliser", "raynas.supernet"}
    for path in (ROOT / "search_spaces").glob("*.py"):
        for module in names(path, "raynas"):
            assert any(module == one or module.startswith(f"{one}.") for one in allowed), (path.name, module)


@pytest.mark.parametrize("folder", ["strategies", "aggregators", "derivations", "methods", "predictors"])
def test_what_decides_about_architectures_needs_no_networks(folder: str) -> None:
    for path in (ROOT / "raynas" / folder).glob("*.py"):
        assert not names(path, "torch", "torchvision"), path.name


@pytest.mark.parametrize(
    "command", ["import raynas", "import raynas.cli", "import raynas.config", "import raynas.space, raynas.members"]
)
def test_importing_raynas_loads_neither_torch_nor_ray(command: str) -> None:
    check = f"{command}; import sys; print(sorted({{'torch', 'ray'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "arguments", [["--help"], *(["list", family] for family in ("settings", "methods", "strategies", "datasets"))]
)
def test_help_and_lists_but_those_of_what_holds_networks_load_neither_torch_nor_ray(arguments: list[str]) -> None:
    check = (
        "import sys, atexit; from raynas.cli import main\n"
        "atexit.register(lambda: print('LOADED', sorted({'torch', 'ray'} & set(sys.modules))))\n"
        f"sys.argv[1:] = {arguments!r}; main()"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0 and "LOADED []" in done.stdout
