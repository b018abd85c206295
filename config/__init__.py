"""Settings with their types and checks, the sentences that users see, and the configuration of logging.

Imports only `services.errors` from the rest of the product. Add a setting in `groups.py` (a provider's in
`provider_group.py`) and a sentence in `texts.py`.
"""
