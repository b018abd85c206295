"""The departments of people, from `DEPARTMENTS_FILE`, for companies whose directory or user table has none.

A CSV file with a head: `userid` and `department`, in any order and among others; a person of several departments has
several lines.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence

Departments = Mapping[str, Sequence[str]]

COLUMNS = ("userid", "department")


def parse_departments(text: str) -> Departments:
    """Return each person's departments, the first one first.

    Raises:
        ValueError: the head lacks a column, or a line lacks a value.
    """
    rows = csv.DictReader(io.StringIO(text, newline=""))
    if missing := [name for name in COLUMNS if name not in (rows.fieldnames or ())]:
        raise ValueError(f"CSV whose head has {missing[0]}")
    found: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        userid, department = ((row[name] or "").strip() for name in COLUMNS)
        if not userid or not department:
            raise ValueError(f"in line {rows.line_num} a userid and a department")
        found[userid].append(department)
    return found
