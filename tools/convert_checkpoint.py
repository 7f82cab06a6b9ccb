"""Same as `ernerf-ti convert`."""

import sys

from ernerf_ti.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["convert", *sys.argv[1:]]))
