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
