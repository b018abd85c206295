"""The departments of people, from `DEPARTMENTS_FILE`, for companies whose directory or user table has none.

A CSV file with a head: `userid` and `department`, in any order and among others; a person of several departments has
several lines.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

Departments = Mapping[str, Sequence[str]]

COLUMNS = ("userid", "department")


def parse_departments(text: str) -> Departments:
    """Return each person's departments, the first one first.

    Raises:
        ValueError: it is no CSV, its head lacks a column, or a line lacks a value.
    """
    # Strict: a quotation mark without its partner would take the rest of the file for one department.
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        return _by_person(rows)
    except csv.Error as exc:
        raise ValueError(f"CSV, which line {rows.line_num} is not ({exc})") from exc


def _by_person(rows: Any) -> Departments:
    head: list[str] = next(rows, [])
    if missing := [name for name in COLUMNS if name not in head]:
        raise ValueError(f"CSV whose head has {missing[0]}")
    places = [head.index(name) for name in COLUMNS]
    found: dict[str, list[str]] = defaultdict(list)
    for row in filter(None, rows):
        userid, department = (row[place].strip() if place < len(row) else "" for place in places)
        if not userid or not department:
            raise ValueError(f"in line {rows.line_num} a userid and a department")
        found[userid].append(department)
    return found
