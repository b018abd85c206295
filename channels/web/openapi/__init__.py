"""The REST addresses as an OpenAPI document, made of the models that read requests and shape answers."""
