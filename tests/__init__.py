"""The tests, by what they need.

`unit` needs nothing, `redis` and `sql` a server, `app` the whole product, `scenarios` real processes, `browser`
Chromium; `project` is about the repository itself. `support` has the helpers of all of them.
"""
