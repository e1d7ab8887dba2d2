"""Numbers: percentiles, medians over repeats, ratios."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest rank: the smallest of ``ordered`` (ascending) that at least ``share`` of them do not exceed.

    Nothing is interpolated, so every number that is reported is one that was measured. 0 where nothing was.
    """
    if not 0 < share <= 1:
        raise ValueError("a share is above 0 and at most 1")
    if not ordered:
        return 0.0
    # Rounded first: 0.07 * 100 is a hair above 7, and its ceiling would be the next rank.
    return ordered[max(math.ceil(round(share * len(ordered), 9)), 1) - 1]


@dataclass(kw_only=True)
class Cell:
    """One system at one number of calls in flight: one repeat, or the medians of all of them."""

    system: str
    in_flight: int
    repeat: int
    calls: int
    """Answered in the measured time."""
    made: int
    """With warm-up and the last ones in flight."""
    wrong: int
    seconds: float
    calls_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: dict[str, float] = field(default_factory=dict)
    """CPU time per call of each process, by its role."""
    pss_mib: float = 0.0
    system_busy: float = 0.0
    load_busy: float = 0.0
    """Share of the measured time that each of the two cores worked."""
    others_busy: float = 0.0
    """Share of both cores that went to whoever has nothing to do with the run."""
    lag_calls: int = 0
    """Calls whose spans had not arrived when the load ended."""
    drain_s: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def cpu_total_us(self) -> float:
        return sum(self.cpu_us.values())


def medians(cells: Sequence[Cell]) -> list[Cell]:
    """One cell for each system and level: medians of what was measured, sums of what was counted."""
    groups: dict[tuple[str, int], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.system, cell.in_flight), []).append(cell)
    return [_median(group) for group in groups.values()]


def _median(group: Sequence[Cell]) -> Cell:
    def middle(values: Iterable[float]) -> float:
        return statistics.median(values)

    first = group[0]
    return Cell(
        system=first.system,
        in_flight=first.in_flight,
        repeat=len(group),
        calls=sum(cell.calls for cell in group),
        made=sum(cell.made for cell in group),
        wrong=sum(cell.wrong for cell in group),
        seconds=sum(cell.seconds for cell in group),
        calls_per_s=middle(cell.calls_per_s for cell in group),
        p50_ms=middle(cell.p50_ms for cell in group),
        p99_ms=middle(cell.p99_ms for cell in group),
        cpu_us={role: middle(cell.cpu_us.get(role, 0.0) for cell in group) for role in first.cpu_us},
        pss_mib=middle(cell.pss_mib for cell in group),
        system_busy=middle(cell.system_busy for cell in group),
        load_busy=middle(cell.load_busy for cell in group),
        others_busy=middle(cell.others_busy for cell in group),
        lag_calls=round(middle(cell.lag_calls for cell in group)),
        drain_s=middle(cell.drain_s for cell in group),
        notes=[note for cell in group for note in cell.notes],
    )


def ratio(cell: Cell, others: Iterable[Cell], system: str) -> float | None:
    """Calls/s of ``cell`` over those of ``system`` at the same level; ``None`` where that was not measured."""
    for other in others:
        if other.system == system and other.in_flight == cell.in_flight and other.calls_per_s:
            return cell.calls_per_s / other.calls_per_s
    return None


def as_json(cell: Cell) -> dict[str, Any]:
    """Plain values, rounded to what the measurement is good for."""
    plain = asdict(cell)
    plain["cpu_us"] = {role: round(value, 1) for role, value in cell.cpu_us.items()}
    for name, digits in (("seconds", 3), ("calls_per_s", 1), ("p50_ms", 3), ("p99_ms", 3), ("pss_mib", 1)):
        plain[name] = round(plain[name], digits)
    for name in ("system_busy", "load_busy", "others_busy", "drain_s"):
        plain[name] = round(plain[name], 3)
    return plain
