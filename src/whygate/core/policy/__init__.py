"""The policy language: YAML rules with CEL conditions."""
