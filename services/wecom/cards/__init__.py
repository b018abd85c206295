"""Template cards: what WeCom shows below an answer, and what a click on one means. Pure functions, no I/O.

`choice.py` chooses the card of an answer: a block that the app wrote (`block.py` finds it, `schema.py` checks it), a
form, or suggestions. `build.py` makes cards, and the one that replaces a card after a click; `click.py` reads the
click's event. A card is a plain object as WeCom documents it, so every way of sending one can use these functions.
"""
