"""The REST addresses of batches: `endpoints.py` and their models, uploads of files and downloads of results."""
