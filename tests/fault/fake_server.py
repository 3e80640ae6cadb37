"""A kinod whose workers run tests/support/fake_engine: no model takes time, and a job does what its prompt says."""
import os
import pathlib
import shutil

import kino_client


def fake_kinod(stubs, folder, settings, **options):
    """As Kinod(...), in a new `folder`; not started."""
    binaries = pathlib.Path(folder) / "bin"
    binaries.mkdir(parents=True)
    built = pathlib.Path(os.environ["KINO_BIN_DIR"])
    shutil.copy(built / "kinod", binaries / "kinod")  # it looks for the others beside itself
    for name in ("kino-frontend", "kino-media"):
        (binaries / name).symlink_to(built / name)
    (binaries / "kino-worker").symlink_to(built / "fake-worker")
    return kino_client.Kinod(stubs, folder, settings, bin_dir=binaries, **options)
