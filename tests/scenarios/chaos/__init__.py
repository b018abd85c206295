"""Every channel in use while everything around it fails: `make chaos`, or `python -m tests.scenarios.chaos`.

`world` has the replicas and the servers around them, `channels` the table of what people and programs do, `faults` the
table of what happens meanwhile, `report` the verdicts and the printed tables, `__main__` the arguments and the run.
"""
