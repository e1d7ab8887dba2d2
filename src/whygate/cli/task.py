"""``whygate task``: a task as a tree of its calls."""

from typing import Annotated

import typer

from whygate.cli import chains, printing_chains
from whygate.cli.reading import (
    DEFAULT_CONFIG,
    NO,
    AsJson,
    ConfigFile,
    LedgerFile,
    fail,
    find_chain,
    hint,
    ledger_path,
    reading,
    records,
)
from whygate.cli.screen import put_json, screen
from whygate.cli.words import plain


def task(
    asked: Annotated[
        str, typer.Argument(metavar="ID", help="A task or trace, or a decision in it; its first hex digits will do.")
    ],
    config: ConfigFile = DEFAULT_CONFIG,
    ledger: LedgerFile = None,
    as_json: AsJson = False,
) -> None:
    """Show a task as the tree of its calls: when, who, which tool, what came of it."""
    path = ledger_path(config, ledger)
    with reading(path) as reader:
        found = find_chain(reader, asked)
        if found is None:
            fail(
                NO,
                f"The ledger {path} knows no task or trace {plain(asked)}.",
                "It may be in another ledger (--ledger PATH).",
            )
        chain = chains.build(found.id, found.kind, records(found))
    if as_json:
        put_json(chain)
        return
    printing_chains.chain(screen(), chain, hint(ledger, config))
