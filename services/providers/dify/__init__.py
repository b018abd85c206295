"""Dify as a provider: its service API, its event streams, the recovery of answers that another replica asked for.

`recovery.py` finds an answer whose owner or stream was lost, with `search.py` for runs whose ids never arrived,
`polling.py` for pauses and bounds, and `records.py` for what Dify keeps. `features/` has what an app may do beside
text. `tools.dify` uses `service.py` and `turn.py` too, so the tool and the product read events alike.
"""
