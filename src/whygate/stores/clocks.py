"""The machine's clocks, in whole microseconds."""

import time


def wall_us() -> int:
    """Since 1970. Can be set, back as well."""
    return time.time_ns() // 1000


def steady_us() -> int:
    """By a clock that nobody sets, and that goes on while the machine sleeps, where there is such a one."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) // 1000
