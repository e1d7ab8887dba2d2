"""The edge to agents that speak MCP, and the upstreams that speak it over stdio."""
