"""Incremental decoders and readers: server-sent events, JSON records, character encodings, workbooks."""
