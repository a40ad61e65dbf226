"""A member is found by its file's name or by a module of the user's own; what is not there is told with the nearest."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from raynas.errors import UserError
from raynas.members import family, full_path, load_member, load_module, members
from raynas.strategies.random_search import RandomSearch


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder of a user who keeps modules in it."""
    monkeypatch.chdir(tmp_path)
    before, path = set(sys.modules), list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if name.startswith("my_"):
            del sys.modules[name]


def test_a_name_is_the_files_and_stands_for_the_class_or_function_called_like_it() -> None:
    assert load_member("raynas.strategies", "random_search") is RandomSearch
    assert load_member("raynas.strategies", "raynas.strategies.random_search") is RandomSearch
    assert load_member("raynas.aggregators", "borda").__name__ == "borda"
    assert load_member("raynas.methods", "nsga2", "METHOD").strategy == "nsga2"


def test_a_family_is_its_files_with_their_first_sentences() -> None:
    assert list(family("raynas.strategies")) == members("raynas.strategies")
    assert "random_search" in members("raynas.strategies")
    assert not [name for name in members("raynas.strategies") if name.startswith("_")]
    assert all(sentence and "\n" not in sentence for sentence in family("search_spaces").values())
    assert family("raynas.no_such_family") == {} and members("no_such_package") == []


def test_the_users_own_modules_lie_in_the_working_folder(own: Path) -> None:
    (own / "my_strategy.py").write_text("class MyStrategy: ...\n")
    (own / "my_team").mkdir()
    (own / "my_team" / "my_cost.py").write_text("def my_cost(): ...\n")
    assert full_path("raynas.strategies", "my_strategy") == "my_strategy"
    assert load_member("raynas.strategies", "my_strategy").__name__ == "MyStrategy"
    assert load_member("raynas.costs", "my_team.my_cost").__name__ == "my_cost"


@pytest.mark.parametrize(
    ("package", "name", "told"),
    [
        ("raynas.strategies", "randm_search", "unknown strategy 'randm_search'; did you mean 'random_search'?"),
        ("raynas.training_rules", "unifrm", "unknown training rule 'unifrm'; did you mean 'uniform'?"),
        ("raynas.costs", "raynas.costs.macz", "unknown cost 'macz'; did you mean 'macs'?"),
        ("raynas.aggregators", "my_team.borda", "unknown aggregator 'my_team.borda'"),
        ("raynas.methods", "./my_method.py", "expected a method as a name or as a module such as"),
        ("raynas.methods", "my_method.py", "but got 'my_method.py'; leave out .py; known: "),
        ("raynas.methods", "", "expected a method as a name or as a module such as"),
        ("raynas.methods", "..nsga2", "expected a method as a name or as a module such as"),
    ],
)
def test_what_is_not_there_is_told_with_the_nearest(package: str, name: str, told: str, own: Path) -> None:
    with pytest.raises(UserError) as mistake:
        load_member(package, name)
    said = str(mistake.value)
    assert told in said and "known: " in said and f"a module of your own in {own}" in said and "\n" not in said


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import a_library_that_is_not_installed\n", r"my_space\.py:1 with ModuleNotFoundError: No module named"),
        ("\n\n1 / 0\n", r"my_space\.py:3 with ZeroDivisionError: division by zero"),
        ("x = 1\ndef (\n", r"my_space\.py:2 with SyntaxError"),
        ("raise SystemExit(0)\n", r"my_space\.py:1 with SystemExit: 0"),
        ("import json\njson.loads('{')\n", r"my_space\.py:2 with JSONDecodeError"),
    ],
)
def test_a_module_of_the_users_that_cannot_be_imported_is_told_with_its_line(source: str, told: str, own: Path) -> None:
    (own / "my_space.py").write_text(source)
    with pytest.raises(UserError, match=told) as mistake:
        load_module("my_space", "space", "search_spaces")
    assert "importing the space my_space" in str(mistake.value) and "\n" not in str(mistake.value)


def test_a_fault_in_a_file_of_raynas_is_no_mistake_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "raynas.aggregators.borda", raising=False)
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(ImportError):
        load_member("raynas.aggregators", "borda")


def test_a_module_that_holds_something_else_is_told(own: Path) -> None:
    (own / "my_thing.py").write_text("x = 1\n")
    with pytest.raises(UserError, match="my_thing is no strategy: expected class MyThing or function my_thing in it"):
        load_member("raynas.strategies", "my_thing")
    with pytest.raises(UserError, match="my_thing is no method: expected METHOD in it"):
        load_member("raynas.methods", "my_thing", "METHOD")
