"""Who may administrate, and what they did.

`tokens.py` finds the administrator of a token, by ADMIN_TOKEN, ADMIN_TOKENS, or a row that `python -m tools.admin`
made; `sessions.py` makes cookies that stand for a token; `sql_store.py` has these rows and the audit. Roles are
checked by `channels/web/guarded.py`.
"""
