import signal

import pytest

from frontend_fixture import Frontend


def end(frontends):
    """Stops all, then looks how they ended: a sanitizer tells a leak by the exit code, once the process is done."""
    codes = [frontend.stop() for frontend in frontends]
    for frontend in frontends:  # pytest shows it on failure
        print(f"--- {frontend.log_path}\n{frontend.log_path.read_text()[-20000:]}")
    for frontend, code in zip(frontends, codes):
        assert code in (0, -signal.SIGKILL), f"kino-frontend ended with {code}, expected 0 or a test's SIGKILL"


@pytest.fixture
def start(tmp_path):
    """Starts frontends and stops them after the test."""
    running = []

    def begin(extra="", **options):
        frontend = Frontend(tmp_path, extra, **options)
        running.append(frontend)
        return frontend

    yield begin
    end(running)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One frontend for all tests that leave nothing behind in it."""
    frontend = Frontend(tmp_path_factory.mktemp("shared"))
    yield frontend
    end([frontend])
