"""Fixtures that the integration and the fault tests share."""
import pytest

import kino_client


@pytest.fixture(scope="session")
def stubs(tmp_path_factory):
    """The modules compiled from the protos."""
    return kino_client.compile_protos(str(tmp_path_factory.mktemp("stubs")))


@pytest.fixture
def start_kinod(stubs, tmp_path):
    """start_kinod(settings={}) -> a serving Kinod; all are stopped after the test, their logs shown if it failed."""
    started = []

    def start(settings=None, name=None):
        folder = tmp_path / (name or f"kinod-{len(started)}")
        folder.mkdir()
        server = kino_client.Kinod(stubs, folder, settings)
        started.append(server)
        return server.start()

    yield start
    for server in started:
        print(f"--- log of {server.folder}\n{server.log_text()}")  # pytest shows it on failure
        server.stop()


@pytest.fixture(scope="session")
def kinod(stubs, tmp_path_factory):
    """One server with the demo model for all tests that leave it as they found it."""
    server = kino_client.Kinod(stubs, tmp_path_factory.mktemp("kinod"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def client(kinod):
    with kinod.client() as connected:
        yield connected
