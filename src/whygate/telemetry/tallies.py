"""Counters and histograms that cost a fraction of a microsecond: the hot path adds up, and a scrape makes families of it.

The client library's own children take a lock and walk their buckets for each observation. These belong to the event loop
alone; a scrape from elsewhere may see an observation half (its sum, not yet its bucket), never a wrong total.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

Labels = tuple[str, ...]


class Histogram:
    """How often each bucket was hit, and the sum, for one set of labels."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """Not cumulative; the last is for what is above every bound."""
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self._bounds, value)] += 1  # a bound belongs to its own bucket: `le`
        self.sum += value


class Histograms(Collector):
    """A family of histograms."""

    def __init__(self, name: str, told: str, labels: Labels, bounds: Sequence[float]) -> None:
        self._described: Final = name, told, labels
        self._bounds = tuple(bounds)
        self._les = [*map(floatToGoString, bounds), "+Inf"]
        self._children: dict[Labels, Histogram] = {}

    def child(self, labels: Labels) -> Histogram:
        """The one of these labels, made where there is none."""
        found = self._children.get(labels)
        if found is None:
            found = self._children[labels] = Histogram(self._bounds)
        return found

    def collect(self) -> Iterator[Metric]:
        name, told, labels = self._described
        family = HistogramMetricFamily(name, told, labels=labels)
        for values, child in list(self._children.items()):
            total, buckets = 0, []
            for le, count in zip(self._les, list(child.counts), strict=True):
                total += count
                buckets.append((le, float(total)))
            family.add_metric(values, buckets, child.sum)
        yield family


class Counters(Collector):
    """A family of counters."""

    def __init__(self, name: str, told: str, labels: Labels) -> None:
        self._described: Final = name, told, labels
        self.counts: dict[Labels, int] = {}

    def add(self, labels: Labels) -> None:
        self.counts[labels] = self.counts.get(labels, 0) + 1

    def collect(self) -> Iterator[Metric]:
        name, told, labels = self._described
        family = CounterMetricFamily(name, told, labels=labels)
        for values, count in list(self.counts.items()):
            family.add_metric(values, count)
        yield family
