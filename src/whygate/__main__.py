"""``python -m whygate``: the command line."""

from whygate.cli.main import main

main()
