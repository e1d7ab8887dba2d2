"""The operators' side over HTTP: ``/v1``, health, metrics and their OpenAPI document."""
