"""Shared by the providers: a question to a JSON service, its reply as records, retries, statuses as errors.

`json_service.py` is what openai, custom and plug-ins use: one POST, retried until the first record arrives.
`record_stream.py` reads the reply within a timeout and can be aborted; `utils.formats.json_records` distinguishes
events, lines and a single object by their bytes. `inputs.py` fills the templates DIFY_INPUTS and CUSTOM_RAG_INPUTS.
"""
