"""The REST addresses of batches: `endpoints.py` and their models, uploads of files and downloads of results.

A process of its own reads an uploaded file (`utils.questions.files`), with bounds on time and memory: openpyxl takes
the CPU for seconds, and under gevent every other request would wait. A download reads SQL by pages and yields after
each 64 KiB; if the database goes away it is cut off, so an incomplete file never looks complete.
"""
