"""The pages for people and developers, each one document without outside parts; their sources are in `html/`.

`pages.py` joins a page's parts at its first request. The content security policy names the page's one script and one
style by hash and allows nothing else; markup enters by one function, which gets what `utils.markdown.html` rendered.
"""
