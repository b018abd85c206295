"""Ratings of answers: kept in SQL, one row per answer and person, and sent to the provider.

    inbox.py           takes a rating from a channel: two round trips to Redis, nothing else
    rating_store.py    in Redis: the answers that can be rated, their ratings, the queue of those not delivered yet
    delivery.py        a thread of each replica that works off the queue
    sql_store.py       the table

A rating is ordered by the time of its event when Redis takes it (lua/feedback_add.lua): the last one of a person wins,
one with a known event id changes nothing. From there a queue that all replicas share carries it to SQL and to the
provider, each at least once; both take the same state twice, and a later state is never overwritten by an earlier one.
A replica that is killed leaves its entry claimed for `LEASE` seconds, then another one takes it.
"""
