"""Same as `ernerf-ti evaluate`."""

import sys

from ernerf_ti.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
