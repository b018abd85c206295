"""Small things without I/O that know nothing of the product. Imports the standard library and parsers alone."""
