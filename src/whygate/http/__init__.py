"""The edge to agents that call plain HTTP tools."""
