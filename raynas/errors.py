"""A mistake that the user can mend, told in one line."""

import difflib
import os
import re
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path

LIBRARIES = (
    *(f"{Path(__file__).parents[1] / package}{os.sep}" for package in ("raynas", "search_spaces")),
    *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")),
    "<",
)
"""Where no file of the user's lies."""


class UserError(Exception):
    """Says what was expected, what came and how to mend it; the command line prints it alone and exits with 2."""


def closest(word: str, known: Iterable[str]) -> str:
    """A hint for an unknown word: the nearest known one and the whole list."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}known: {', '.join(known) or 'none'}"


def reason(fault: BaseException) -> str:
    """What a library says went wrong, in one line and without its error number."""
    text = str(getattr(fault, "strerror", None) or str(fault).strip() or type(fault).__name__).splitlines()[0]
    return re.sub(r"^.*Detail: (\[errno \d+\] )?", "", text).rstrip(".")  # Arrow repeats the path before its detail


def raise_mistake_of_user(what: str, fault: Exception) -> None:
    """Raise UserError, with the line, if a file of the user's own was at work when `fault` was raised; else return."""
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(fault.__traceback__)]
    if isinstance(fault, SyntaxError) and fault.filename is not None:
        frames.append((fault.filename, fault.lineno))
    own = [(file, line) for file, line in frames if not file.startswith(LIBRARIES)]
    if own:
        file, line = own[-1]
        raise UserError(
            f"{what} failed at {file}:{line} with {type(fault).__name__}: {reason(fault)}; mend it."
        ) from fault
