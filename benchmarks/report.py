"""What a run says: a table for people, JSON for machines."""

from collections.abc import Sequence
from typing import Any

from benchmarks.measures import Cell, as_json, ratio
from rich import box
from rich.console import Console
from rich.table import Table

NOISY = 0.05
"""Above this share of both cores, what others did shows in the numbers."""
SATURATED = 0.95
"""Above this share the load's core was the limit: the system could have done more."""


def table(cells: Sequence[Cell]) -> Table:
    """Medians, one row for each system at each level."""
    made = Table(box=box.SIMPLE_HEAD, title="medians over the repeats", title_justify="left", title_style="dim")
    made.add_column("in flight", justify="right")
    made.add_column("system")
    for name in ("calls/s", "÷ bare", "÷ nginx", "p50 ms", "p99 ms", "CPU µs/call", "PSS MiB"):
        made.add_column(name, justify="right")
    made.add_column("cores busy", justify="right")
    made.add_column("wrong", justify="right")
    previous = None
    for cell in sorted(cells, key=lambda cell: cell.in_flight):
        if previous is not None and previous != cell.in_flight:
            made.add_section()
        previous = cell.in_flight
        made.add_row(*_row(cell, cells))
    return made


def _saturated(cell: Cell) -> bool:
    """Whether the load's core was the limit, by our own work and not by that of others."""
    return cell.load_busy > SATURATED and cell.others_busy <= NOISY


def _row(cell: Cell, cells: Sequence[Cell]) -> list[str]:
    parts = " + ".join(f"{value:.0f}" for value in cell.cpu_us.values())
    limit = "≥" if _saturated(cell) else ""
    return [
        str(cell.in_flight),
        cell.system,
        f"{limit}{cell.calls_per_s:,.0f}",
        _times(ratio(cell, cells, "bare")),
        _times(ratio(cell, cells, "nginx")),
        f"{cell.p50_ms:.2f}",
        f"{cell.p99_ms:.2f}",
        parts or "-",
        f"{cell.pss_mib:.0f}" if cell.pss_mib else "-",
        f"{cell.system_busy:.0%} {cell.load_busy:.0%} {cell.others_busy:.0%}",
        str(cell.wrong),
    ]


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def machine_line(machine: dict[str, Any]) -> str:
    """One line without which the numbers are worthless."""
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    fsync = machine["fsync_ms"]
    return (
        f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, Python {machine['python']}, {packages}; "
        f"{machine['nginx']}; "
        f"write + fdatasync of 4 KiB on {machine['file_system']}: p50 {fsync['before']['p50']:.2f}, p99 "
        f"{fsync['before']['p99']:.2f} ms before, p50 {fsync['after']['p50']:.2f}, p99 {fsync['after']['p99']:.2f} ms after"
    )


def projection_lines(cells: Sequence[Cell]) -> list[str]:
    """How far the spans were behind when the load ended."""
    return [
        f"{cell.in_flight:>3} in flight: {cell.lag_calls} calls' spans were still to come when the load ended; "
        f"drained {cell.drain_s:.2f} s later"
        for cell in sorted(cells, key=lambda cell: cell.in_flight)
        if cell.system == "gateway"
    ]


def show(console: Console, machine: dict[str, Any], cells: Sequence[Cell]) -> None:
    """Print everything."""
    console.print(table(cells))
    if any(_saturated(cell) for cell in cells):
        console.print("≥: the core of load and upstream was the limit, the system could have done more", style="dim")
    console.print(
        "CPU µs/call: of the gateway, its own process + the projector's\n"
        "cores busy: the system's, the load's, and how much of both went to processes of others",
        style="dim",
    )
    for line in projection_lines(cells):
        console.print(line)
    noisy = max((cell.others_busy for cell in cells), default=0.0)
    if noisy > NOISY:
        console.print(
            f"Others took up to {noisy:.0%} of the cores meanwhile: the numbers are worth little.", style="yellow"
        )
    console.print(machine_line(machine), style="dim", highlight=False, soft_wrap=True)


def complaints(cells: Sequence[Cell]) -> list[str]:
    """What was wrong, one line each; empty where nothing was."""
    found = []
    for cell in cells:
        if cell.wrong or not cell.calls:
            what = f"{cell.wrong} wrong" if cell.wrong else "no call was answered"
            found.append(f"{cell.system}, {cell.in_flight} in flight: {what}")
            found += [f"  {note}" for note in cell.notes[:6]]
    return found


def document(
    machine: dict[str, Any], settings: dict[str, Any], cells: Sequence[Cell], middle: Sequence[Cell]
) -> dict[str, Any]:
    """The whole run as plain values."""
    return {
        "schema": 1,
        "right": not complaints(cells),
        "machine": machine,
        "settings": settings,
        "medians": [as_json(cell) for cell in middle],
        "cells": [as_json(cell) for cell in cells],
    }
