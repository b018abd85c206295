"""Questions in a file: plain text, CSV or an Excel workbook, with one question per line or row.

`rows.py` reads the rows of any kind of file, `columns.py` finds the column with the questions, `reading.py` makes a
batch of them or shows what it would be made of. `process.py` does both in a process of its own.
"""
