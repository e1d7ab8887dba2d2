"""whygate: an access gateway for the tool calls of AI agents that can always say why."""

__version__ = "0.1.0"
