"""Who asked what, and what it cost: a log of questions, and daily sums that outlive it, both in SQL.

    ended_store.py   in Redis: the streams that have ended and are not counted yet
    records.py       what is kept of a stream: an entry of the log with its dimensions and counts
    tables.py        the tables, and their column types; sums are kept three times, for queries over years
    sql_store.py     writes entries and sums in one transaction, corrects sums by ratings, deletes what is old
    writer.py        two threads of each replica: one works off the queue, one deletes
    log_store.py     reads the log, page by page
    sums_store.py    reads the sums

Usage is independent of the log: `laibao_usage_streams` has a row for each counted stream, so a stream is counted once,
whatever becomes of its entry, and a rating finds the day and the sums that it belongs to.
"""
