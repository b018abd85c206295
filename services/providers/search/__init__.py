"""A web search in front of any provider: its results are the answer, or context for the provider.

`utils.questions.search_intent` decides by rules, or by a prefix, which questions are searched. Streams and histories
keep the person's own question.
"""
