"""The made-up next version as a program: `python -m tests.end_to_end.next_version`, used like `python -m esm`.

`run --crew`: a supervisor of two workers, which start as the next version where a file names them.
"""

import os
import signal
import sys
from pathlib import Path

import anyio

from esm.cli import main
from esm.crew.supervising import Crew
from esm.settings import load_settings
from esm.telemetry import set_up_logging
from tests import next_format

NAMED_IN = "NEXT_VERSION_WORKERS"
"""Variable that names the file with the ids of the workers of the next version; without it every one is."""


async def supervise(config: str) -> int:
    settings = load_settings(os.environ, {"config": config})
    set_up_logging(settings.log_format, settings.log_level)
    python = [sys.executable, "-m", "tests.end_to_end.next_version"]
    crew = Crew(
        settings, os.environ, 2, lambda member: [*python, "run", "--config", config, "--member", str(member)],
        sys.stderr.buffer.write,
    )  # fmt: skip
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        return await crew.run(signals)


if __name__ == "__main__":
    if "--crew" in sys.argv:
        sys.exit(anyio.run(supervise, sys.argv[sys.argv.index("-c") + 1]))
    named_in = os.environ.get(NAMED_IN)
    if named_in is None or os.environ["ESM_WORKER_ID"] in Path(named_in).read_text().split():
        next_format.learn()
    main()
