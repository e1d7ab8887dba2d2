"""What both edges stand on: one HTTP exchange with the agent, one with the upstream, and header hygiene."""
