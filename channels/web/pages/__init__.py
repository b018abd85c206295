"""The HTML pages for people and developers; each loads nothing from other hosts. Their sources are in `html/`."""
