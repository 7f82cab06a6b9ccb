"""Same as `ernerf-ti bench viewer`."""

import sys

from ernerf_ti.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["bench", "viewer", *sys.argv[1:]]))
