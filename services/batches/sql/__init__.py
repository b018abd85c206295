"""The tables of batches and the transactions that change them, for MySQL, MariaDB and SQLite."""
