"""Numbers as people read them: errors as accuracies, costs and times with their units."""

from __future__ import annotations

_NAMES = {"parameters": "parameters", "macs": "MACs", "flops": "FLOPs"}
_UNITS = {"ms": "ms", "us": "µs", "s": "s", "mib": "MiB", "gib": "GiB", "mj": "mJ"}


def accuracy(error: float | None) -> str:
    """An error in 0..1 as an accuracy in percent, or a dash."""
    return "–" if error is None else f"{100 * (1 - error):.1f} %"


def cost_name(name: str) -> str:
    """What a cost is called, without its unit: `latency_ms` -> `latency`."""
    stem, _, suffix = name.rpartition("_")
    return _NAMES.get(name, (stem if stem and suffix in _UNITS else name).replace("_", " "))


def cost_axis(name: str) -> str:
    """A cost's name for an axis, with its unit in brackets if it has one."""
    unit = _UNITS.get(name.rpartition("_")[2]) if "_" in name else None
    return f"{cost_name(name)} ({unit})" if unit else cost_name(name)


def cost(name: str, value: float | None) -> str:
    """A cost's value with its unit or decimal prefix: 73,306 parameters -> `73.3 k`, 3.2 latency_ms -> `3.20 ms`."""
    if value is None:
        return "–"
    unit = _UNITS.get(name.rpartition("_")[2]) if "_" in name else None
    return f"{_three(value)} {unit}" if unit else quantity(value)


def quantity(value: float) -> str:
    """A number with three digits and a decimal prefix: 1,073,466 -> `1.07 M`."""
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * size:
            return f"{_three(value / size)} {prefix}"
    return f"{value:.0f}" if float(value).is_integer() else _three(value)


def duration(seconds: float) -> str:
    """A time in its two largest units: `0.4 s`, `12 s`, `1 min 05 s`, `2 h 03 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def span(least: int, most: int) -> str:
    """A range of counts: `12`, or `12–1,200`."""
    return f"{least:,}" if least == most else f"{least:,}–{most:,}"


def rank(value: float | None) -> str:
    """A rank, with its half where a tie shares the mean."""
    if value is None:
        return "–"
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.1f}"


def signed(value: float | None) -> str:
    """A correlation or a gap with its sign: `+0.61`."""
    return "–" if value is None else f"{value:+.2f}".replace("-", "−")


def interval(measure: dict[str, float | None] | None) -> str:
    """A correlation with its bootstrap interval: `+0.61 [+0.20, +0.83]`."""
    if measure is None or measure.get("value") is None:
        return "–"
    low, high = measure.get("low"), measure.get("high")
    between = "" if low is None or high is None else f" [{signed(low)}, {signed(high)}]"
    return signed(measure["value"]) + between


def printable(text: object) -> str:
    """Text for a terminal: what would steer it (escape sequences in a failure's message) becomes a space."""
    return "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in str(text))


def _three(value: float) -> str:
    for digits in (2, 1):
        if abs(value) < 10 ** (3 - digits) - 0.5 * 10**-digits:
            return f"{value:.{digits}f}"
    return f"{value:,.0f}"
