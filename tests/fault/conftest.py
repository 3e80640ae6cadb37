"""Fixtures of the fault tests: those of the integration tests."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))

from kino_fixtures import client, kinod, start_kinod, stubs  # noqa: E402,F401
