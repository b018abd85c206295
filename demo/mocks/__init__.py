"""Mocks of the services that the product calls, over real HTTP: Dify, OpenAI, custom, Serper, the auth API."""
