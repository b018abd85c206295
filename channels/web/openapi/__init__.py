"""Builds the OpenAPI document of the REST addresses from their `Operation`s and pydantic models."""
