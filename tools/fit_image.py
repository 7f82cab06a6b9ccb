"""Same as `ernerf-ti fit-image`."""

import sys

from ernerf_ti.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["fit-image", *sys.argv[1:]]))
