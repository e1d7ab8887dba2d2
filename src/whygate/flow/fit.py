"""Policies beside the pins in force: a rule that can't be right for a pinned tool is an error where it is loaded."""

import logging

from whygate.core.policy.errors import PolicyErrors
from whygate.core.policy.fitting import Fitting
from whygate.core.policy.model import PolicySet
from whygate.flow.catalogue import Catalogue
from whygate.flow.looking import Looker
from whygate.flow.policies import Cause
from whygate.flow.reloading import PolicyReloader

_log = logging.getLogger("whygate.policies")


def must_fit(policies: PolicySet, catalogue: Catalogue) -> None:
    """Raises ``PolicyErrors`` for rules that can't be right for the pinned tools."""
    found = Fitting(catalogue.pinned()).look_at(policies)
    for warning in found.warnings:
        _log.warning("%s", warning)
    if found.errors:
        raise PolicyErrors(found.errors)


def look_again(looker: Looker, reloader: PolicyReloader, catalogue: Catalogue) -> None:
    """Other pins are in force: servers are asked whether they say what is pinned now, and policies whether they fit.

    What is in force stays even where it does not fit: its rules refuse then, as they do for every argument that is absent.
    """
    looker.soon()
    policies = reloader.held
    policies.forget_refusals()
    if policies.current is not None:
        found = Fitting(catalogue.pinned()).look_at(policies.current)
        for finding in (*found.errors, *found.warnings):
            _log.warning("a rule in force does not fit the pins in force: %s", finding)
    if policies.refusal is not None:
        reloader.soon(Cause.FOLDER)
