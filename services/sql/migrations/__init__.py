"""The steps that lead a database to the tables of this version, run by `services/sql/migrator.py`.

`versions/` has a file for each revision; alembic reads them in order. `steps.py` has what they are made of. MySQL
commits every statement by itself, so a migration that was interrupted is run again from its beginning: each of its
steps passes over what is there already. Within a minor version tables and columns are only added, so that a gateway of
the version before keeps working. A file that was released does not change.
"""
