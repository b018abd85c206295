"""Everything between the channels and the outside: streams, answers, providers, identities, batches.

Each package is on a floor and imports only its own floor and those below (docs/architecture.md,
`tests/project/test_imports.py`). `bootstrap/` builds a replica of their parts.
"""
