"""The README's own space works as it stands there; it is searched in test_pipeline.py, where Ray runs."""

from __future__ import annotations

import importlib
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from raynas.config import check
from raynas.members import family
from raynas.plan import make_plan
from raynas.testing import SPACE_CHECKS

ROOT = Path(__file__).parents[1]


def python_blocks(heading: str) -> list[str]:
    """The Python of a section of the README."""
    _, _, rest = (ROOT / "README.md").read_text().partition(f"\n## {heading}\n")
    return re.findall(r"```python\n(.*?)```", rest.partition("\n## ")[0], re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with `my_space.py` and its test, as the README has them."""
    return write_own_space(tmp_path_factory.mktemp("user"))


def write_own_space(folder: Path) -> Path:
    """Save what the README's section tells a user to save."""
    space, test = python_blocks("Your own space in 20 lines")
    (folder / "my_space.py").write_text(space)
    (folder / "test_my_space.py").write_text(test)
    return folder


def test_your_own_space_has_20_lines(folder: Path) -> None:
    assert sum(bool(line.strip()) for line in (folder / "my_space.py").read_text().splitlines()) <= 20


@pytest.mark.parametrize("check", SPACE_CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_your_own_space_passes_your_own_test(
    check: Callable[..., None], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(folder)
    try:
        importlib.import_module("test_my_space").test_my_space(check)
    finally:
        for name in ("my_space", "test_my_space"):  # other tests have a my_space of their own
            sys.modules.pop(name, None)


def test_the_configuration_to_begin_with_is_the_file_of_that_name() -> None:
    (written,) = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert tomllib.loads(written) == tomllib.loads((ROOT / "jobs/configs/photos.toml").read_text())


def test_links_within_the_documentation_lead_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"), ROOT / "k8s/README.md"]
    for page in pages:
        for place in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / place).exists(), f"{page.name}: {place}"


def test_every_method_has_a_section_in_the_documentation_with_a_config_that_is_valid() -> None:
    text = (ROOT / "docs/methods.md").read_text()
    titles = [name for line in re.findall(r"^### (.+)$", text, re.MULTILINE) for name in line.split(", ")]
    assert sorted(titles) == sorted(family("raynas.methods"))
    for one in re.findall(r"^- \*\*Config\*\*: (.+)$", text, re.MULTILINE):
        member = tomllib.loads("\n".join(re.findall(r"`((?:method|settings|rule_settings|partitions) = [^`]+)`", one)))
        space = tomllib.loads("\n".join(re.findall(r"`(space\.(?:name|settings) = [^`]+)`", one))).get("space", {})
        make_plan(check({"members": [member], "space": {"name": "nas_bench_macro", **space}}))
