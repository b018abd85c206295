"""Incremental decoders and readers of formats: server-sent events, JSON records, encodings, workbooks."""
