"""The REST API of batches: `endpoints.py`, request and answer models, file uploads and result downloads."""
