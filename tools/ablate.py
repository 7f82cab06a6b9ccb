"""Same as `ernerf-ti ablate`."""

import sys

from ernerf_ti.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["ablate", *sys.argv[1:]]))
