"""Same as `ernerf-ti view`."""

import sys

from ernerf_ti.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["view", *sys.argv[1:]]))
