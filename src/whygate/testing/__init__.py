"""Fakes, verified by the same contract suites as the real parts, and a fixture upstream."""
