"""Code shared by the providers: sending a question to a JSON service, reading records, retries, error mapping."""
