"""Batches of questions: tasks and items in SQL, lanes in Redis, workers that ask items through the gateway.

Imports `answers` and lower floors. Submitting and changing a task begins in `manager.py`, the work on its items in
`engine.py` and `item.py`; `store.py` has SQL, `claims.py` which item comes next.

**Work.** `BATCH_MAX_CONCURRENT` lanes bound how many items are asked at once over all replicas. One worker holds a lane
by a lease in Redis (10 s, renewed every third of it); a lapsed lane is marked, and given to another worker after 3 s
more. Every replica's sweep, each 5 s and after every change, begins work on free lanes while there is work, in a thread
each, and on no more lanes than its share: all lanes by the number of worker processes. A lane is released when there is
no item for it, when its process leaves, and when the process's share got smaller. A change on one replica is announced
in Redis (`{dify_batch}:announced`), where the others look twice a second. An item is asked under the id
`task/index/attempt`, so the lane's next holder finds the item in SQL and its answer by its stream, and does not ask
again. Two holders of one lane are harmless: a unique index allows one running item per lane, a claim returns that one
first, and an attempt ends once. A transaction that changes a task or an item locks the task's row first.

**Ends.** Results are stored again until SQL takes them. Errors that may pass (busy, unreachable, broken off, …) are
retried after 1, 2, 4 … 60 s with jitter, `max_attempts` times; a rejected key or question fails at once. A provider's
`Retry-After` pauses all lanes (`{dify_batch}:pause`) and costs no attempt; then one lane asks, and the others follow
its first answer. A full or leaving replica costs no attempt. Cancelling ends the task in SQL, then cancels the streams
of its running items; a stream that was just opening, or missed while Redis was away, is cancelled by its worker within
2 s. One replica at a time archives: it logs the ended task, writes its file to `BATCH_STORAGE_PATH`, and deletes tasks
older than `BATCH_RETENTION_DAYS`; files stay. A webhook is called by the process that moved its time on in SQL
(`store.py`), so a call whose process dies comes again. Asking failed items again (`retry`) makes the same task
unfinished, with numbers of attempts that no stream has yet.

**Order.** Of the tasks of one priority, the one that was served longest ago is next. `LOWEST` (`claims.py`) has the
lowest priority that takes part in each of a process's claims, so no task starves.
"""
