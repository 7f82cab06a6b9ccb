"""Same as `ernerf-ti preprocess`."""

import sys

from ernerf_ti.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["preprocess", *sys.argv[1:]]))
