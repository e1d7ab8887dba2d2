"""Projections of the ledger for observability: spans and metrics."""
