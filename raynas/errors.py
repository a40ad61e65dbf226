"""Whose fault it is: a mistake that the user can mend is told in one line."""

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


def lacks_memory(fault: BaseException) -> bool:
    """Whether a device has too little memory: types are told by name and text, so that nothing of torch is needed."""
    lacking = ("out of memory", "ALLOC_FAILED", "can't allocate memory", "size calculation overflowed")
    told = isinstance(fault, RuntimeError) and any(text in str(fault) for text in lacking)
    endless = isinstance(fault, TypeError) and "argument 'size'" in str(fault) and "Overflow" in str(fault)
    return told or endless or _is(fault, "OutOfMemoryError")


def breaks_process(fault: BaseException) -> bool:
    """Whether an accelerator has failed the whole process: all that is asked of it after this fails at once.

    Older torch has no type for it, only the text. To lack memory is not such a fault.
    """
    broken = _is(fault, "AcceleratorError") or (isinstance(fault, RuntimeError) and "CUDA error" in str(fault))
    return broken and not lacks_memory(fault)


def _is(fault: BaseException, name: str) -> bool:
    return any(kind.__name__ == name for kind in type(fault).__mro__)


def raise_mistake_of_user(what: str, fault: BaseException) -> None:
    """Raise UserError if memory lacks or, with the line, if a file of the user's own was at work; else return."""
    if lacks_memory(fault):
        raise UserError(f"{what}: expected what fits into memory, but {reason(fault)}; make it smaller.") from fault
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(fault.__traceback__)]
    if isinstance(fault, SyntaxError) and fault.filename is not None:
        frames.append((fault.filename, fault.lineno))
    own = [(file, line) for file, line in frames if not file.startswith(LIBRARIES)]
    if own:
        file, line = own[-1]
        raise UserError(
            f"{what} failed at {file}:{line} with {type(fault).__name__}: {reason(fault)}; mend it."
        ) from fault
