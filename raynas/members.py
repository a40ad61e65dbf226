"""Finding a member of a family: its name is its file's name, or a dotted path of the user's own."""

import ast
import importlib
import importlib.util
import pkgutil
import re
import sys
from pathlib import Path
from typing import Any

from raynas.errors import UserError, closest, raise_mistake_of_user


def members(package: str) -> list[str]:
    """The names of the members of a package, none if there is no such package; nothing of it is imported."""
    return sorted(_files(package))


def full_path(package: str, name: str) -> str:
    """The module that `name` means: a member of the package, or else a module of the user's own."""
    return f"{package}.{name}" if name in members(package) else name


def family(package: str) -> dict[str, str]:
    """Name and first docstring sentence of each member of a package, read from the files without importing them."""
    found = {}
    for name, source in sorted(_files(package).items()):
        text = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
        found[name] = text.split("\n\n")[0].replace("\n", " ")
    return found


def load_module(path: str, kind: str, known: str) -> Any:
    """Import the module called `path`, one of the package `known` or of the user's own, who keeps it in his folder.

    kind: what it is to be, in words. Raises UserError with the nearest known name if there is none, and with the line
    that failed if it is the user's own and cannot be imported.
    """
    if (folder := str(Path.cwd())) not in sys.path:
        sys.path.append(folder)
    is_file = path.endswith(".py")
    if is_file or not all(part.isidentifier() for part in path.split(".")):
        raise UserError(
            f"expected a {kind} as a name or as a module such as my_team.my_module, but got {path!r}; "
            f"{'leave out .py; ' if is_file else ''}known: {', '.join(members(known))}, or a module of your own in "
            f"{folder}."
        )
    try:
        return importlib.import_module(path)
    except (Exception, SystemExit) as fault:  # a script ends its process
        missing = fault.name if isinstance(fault, ModuleNotFoundError) else None
        if missing is not None and f"{path}.".startswith(f"{missing}."):
            name = path.removeprefix(f"{known}.")
            raise UserError(
                f"unknown {kind} {name!r}; {closest(name, members(known))}, or a module of your own in {folder}."
            ) from None
        raise_mistake_of_user(f"importing the {kind} {path}", fault)
        raise


def load_member(package: str, name: str, attribute: str | None = None) -> Any:
    """Load the one thing that a member's file holds, e.g. `load_member("raynas.strategies", "random_search")`.

    A name is a file of `package`, or else a module of the user's own. The thing is `attribute`, or the class called
    after the file (`random_search.py` holds `RandomSearch`), or the function called like the file.
    """
    kind = re.sub("ie$", "y", package.rsplit(".", 1)[-1].replace("_", " ").removesuffix("s"))
    module = load_module(full_path(package, name), kind, package)
    stem = name.rsplit(".", 1)[-1]
    camel = re.sub(r"(?:^|_)(.)", lambda letter: letter[1].upper(), stem)
    for candidate in (attribute,) if attribute else (camel, stem):
        if hasattr(module, candidate):
            return getattr(module, candidate)
    expected = attribute or f"class {camel} or function {stem}"
    raise UserError(f"{module.__name__} is no {kind}: expected {expected} in it; name what it holds after the file.")


def _files(package: str) -> dict[str, Path]:
    """The file of each member of a package; none if there is no such package."""
    spec = importlib.util.find_spec(package)
    places = spec.submodule_search_locations if spec is not None else None
    found = {
        module.name: Path(place, f"{module.name}.py")
        for place in places or ()
        for module in pkgutil.iter_modules([place])
    }
    return {name: file for name, file in found.items() if not name.startswith("_") and file.is_file()}
