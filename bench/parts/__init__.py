"""The parts of `python -m bench`: one module each, with `measure(scale)`, which yields its figures."""

#: The parts in order. A part's name is how the names of its figures begin, and with `_` for `.` its module.
PARTS = (
    "polls",
    "questions",
    "streams",
    "first_word",
    "growth.length",
    "growth.live",
    "growth.replicas",
    "sockets",
    "scale",
    "start",
)


def part_of(figure: str) -> str:
    """Return the part of a figure by the figure's name. Raises: StopIteration: there is none."""
    return next(part for part in PARTS if figure.startswith(f"{part}."))
