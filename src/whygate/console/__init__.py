"""The web console: for people who approve, run and audit."""
