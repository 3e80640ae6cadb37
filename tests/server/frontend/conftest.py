import pytest

from frontend_fixture import Frontend


@pytest.fixture
def start(tmp_path):
    """Starts frontends and stops them after the test."""
    running = []

    def begin(extra="", **options):
        frontend = Frontend(tmp_path, extra, **options)
        running.append(frontend)
        return frontend

    yield begin
    for frontend in running:
        frontend.stop()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One frontend for all tests that leave nothing behind in it."""
    frontend = Frontend(tmp_path_factory.mktemp("shared"))
    yield frontend
    frontend.stop()
