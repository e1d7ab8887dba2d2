"""What every test may ask for. Servers are real ones; where one is not installed, the test says what to install."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.servers import jaeger as jaeger_server
from tests.servers import nginx as nginx_server
from tests.servers import npm

from whygate.testing.billing import BillingServer
from whygate.testing.threads import serving

pytest_plugins = ["pytester", "tests.no_skips"]

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure() -> None:
    # A shell has what it starts in the background ignore Ctrl-C, and children inherit that; tests press it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def jaeger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[jaeger_server.Jaeger]:
    """One running Jaeger for all tests: give each test's spans a service or a tag of their own."""
    if jaeger_server.binary() is None:
        pytest.skip(jaeger_server.INSTALL)
    with jaeger_server.running(tmp_path_factory.mktemp("jaeger")) as server:
        yield server


@pytest.fixture(scope="session")
def nginx_binary() -> Path:
    found = nginx_server.binary()
    if found is None:
        pytest.skip(nginx_server.INSTALL)
    return found


@pytest.fixture(scope="session")
def mcp1_python() -> Path:
    """The Python of the virtual environment with the last 1.x MCP client: run an agent with it as a process of its own."""
    python = ROOT / ".venv-mcp1" / "bin" / "python"
    if not python.exists():
        pytest.skip("no .venv-mcp1: `make test` lays it")
    return python


@pytest.fixture(scope="session")
def npm_packages() -> Path:
    """The folder with npm's packages: the conformance suite, and MCP servers of everyday use."""
    if not npm.home().is_dir() or npm.node() is None:
        pytest.skip(npm.INSTALL)
    return npm.home()


@pytest.fixture
def billing() -> Iterator[BillingServer]:
    """The billing API of the examples, told a credential that only the gateway knows."""
    with serving(BillingServer("the-gateways-own-secret")) as server:
        yield server
