"""Reading large bodies without keeping everybody else waiting."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

LARGE_BYTES: Final = 128 * 1024
"""Below, reading takes some milliseconds at the most; 4 MiB of small objects take more than half a second."""
_READER: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="whygate-large-body")
"""One at a time: a body of 4 MiB can become a hundred times its bytes in objects."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


async def aside(size_bytes: int, read: Callable[_P, _T], *args: _P.args, **more: _P.kwargs) -> _T:
    """What ``read`` returns: called at once where ``size_bytes`` is small, else in a thread of its own."""
    if size_bytes < LARGE_BYTES:
        return read(*args, **more)
    return await asyncio.get_running_loop().run_in_executor(_READER, lambda: read(*args, **more))
