"""The command line: parse, call `vitrim.api`, print. Importing it imports neither torch nor timm."""

from __future__ import annotations

import signal
import sys

from .terminal.commands import bundles, graphs, lists, make
from .terminal.errors import report as tell
from .terminal.group import cli
from .terminal.streams import open_streams

ROOMS = (make, bundles, graphs, lists)  # importing them gives the group its commands


def main() -> None:
    """Run the command line; every error is one line and a status, never a traceback."""
    open_streams()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    printed: dict[str, bool] = {}
    try:
        sys.exit(cli.main(prog_name="vitrim", standalone_mode=False, obj=printed) or 0)
    except (Exception, KeyboardInterrupt) as error:
        sys.exit(tell(error, as_json="--json" in sys.argv[1:] and not printed))


if __name__ == "__main__":
    main()
