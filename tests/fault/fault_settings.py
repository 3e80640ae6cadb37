"""Configurations for servers that lose processes."""
import kino_client

# Lost processes come back and lost attempts run again at once: tested is the order of things, not the pauses.
# No lease is lost because the machine is busy: a test of lost leases sets its own.
QUICK = {"supervisor": {"restart_min": "100ms"}, "retry": {"min_backoff": "0s", "max_backoff": "0s"}, "link": {"lease": "60s"}}


def at_fixed_port(**settings):
    """QUICK, at an address that a restarted frontend has again."""
    return {**QUICK, "listen": {"address": f"127.0.0.1:{kino_client.free_port()}"}, **settings}


def workers(count):
    return [{"name": "cpu", "device": "cpu", "threads": 1, "count": count}]
