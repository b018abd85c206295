"""The REST addresses as an OpenAPI document, made of the models that read requests and shape answers.

It is built from the `OPERATIONS` of every module that makes a blueprint, so no address is listed twice.
"""
