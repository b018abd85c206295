"""Small modules without I/O and without knowledge of the product. Import only the standard library and parsers."""
