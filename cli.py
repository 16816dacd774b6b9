"""The command line: parse, call `vitrim.api`, print. Importing it imports neither torch nor timm."""

from __future__ import annotations

import signal
import sys

from . import cli_bundles, cli_graphs, cli_lists, cli_make
from .cli_errors import report as tell
from .cli_group import cli
from .cli_streams import open_streams

ROOMS = (cli_make, cli_bundles, cli_graphs, cli_lists)  # importing them gives the group its commands


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
