"""Markdown as WeCom needs it, and as safe HTML for pages.

For WeCom (`wecom.py`) a text is rendered in stretches between blank lines: a regular expression passes most of them as
they are, and the output of the rules in `lines.py` is cached for the rest. `utils.stream_utils.render_frame` has a
short path for answers without thinking that fit a frame; tests hold both to the long path.

For pages, `html.py` is a parser without HTML, then an allow-list. `blocks.py` renders a growing text block by block: a
block that is followed by another is rendered once, the open block again when it has grown by an eighth (a half above
16 KiB). The first 64 Ki characters, 3,000 lines and 6,000 marks are Markdown, the rest is shown as it is: a rendering
takes a fifth of a second at most, in which the process does nothing else. Formulas and cells are limited by number,
blocks and brackets by depth, colours of code by CPU time.
"""
