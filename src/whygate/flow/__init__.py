"""The story of a call: facts are fetched, the core decides, the ledger writes, and only then something happens."""
