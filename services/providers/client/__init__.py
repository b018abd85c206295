"""What the providers share: a question to a JSON service, its reply as records, retries, statuses as errors."""
