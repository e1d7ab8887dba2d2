"""What is spoken on sockets of our own is tested on asyncio's loop and on the one that the gateway runs on."""

import asyncio
import sys
from collections.abc import Callable, Mapping

import pytest

if sys.platform != "win32":
    import uvloop


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.path.name.startswith("test_http1_") and sys.platform != "win32":
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}
