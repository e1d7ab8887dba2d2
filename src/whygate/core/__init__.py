"""The pure heart: values, the vocabulary, and the one function that decides.

Nothing here touches the world: no clock, randomness, socket, file, logger, framework or ``async``.
"""
