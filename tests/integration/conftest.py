"""Fixtures of the integration tests."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from kino_fixtures import client, kinod, start_kinod, stubs  # noqa: E402,F401
