"""Shared by the providers: a question to a JSON service, its reply as records, retries, statuses as errors.

`asking_service.py` is what openai, custom and plug-ins use: one POST, retried while no record was seen.
`record_stream.py` reads the reply with a bound on silence and can be aborted; `utils.formats.json_records` tells
events, lines and a whole body apart by their bytes. `inputs.py` fills the templates DIFY_INPUTS and CUSTOM_RAG_INPUTS.
"""
