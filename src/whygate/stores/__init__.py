"""Where the ledger and its live state are kept."""
