"""Same as `ernerf-ti bench cuda`."""

import sys

from ernerf_ti.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["bench", "cuda", *sys.argv[1:]]))
