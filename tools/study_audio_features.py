"""Same as `ernerf-ti study-audio`."""

import sys

from ernerf_ti.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["study-audio", *sys.argv[1:]]))
