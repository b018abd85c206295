"""The pages for people and developers; their sources are in `html/`, what all of them have in `html/shared/`.

`pages.py` joins a page's parts to one document at its first request. The content security policy names the page's own
scripts and style by hash and allows nothing else, on /docs also this host's files; markup enters by one function, which
gets what `utils.markdown.html` rendered.
"""
