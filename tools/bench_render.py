"""Same as `ernerf-ti bench render`."""

import sys

from ernerf_ti.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["bench", "render", *sys.argv[1:]]))
