"""Same as `ernerf-ti synthetic`."""

import sys

from ernerf_ti.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["synthetic", *sys.argv[1:]]))
