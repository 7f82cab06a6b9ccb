"""`python -m ernerf_ti`, and the command `ernerf-ti`."""

import signal
import sys


def main() -> int:
    """Run the command line of the process; Ctrl-C ends in one line from the first import of ours to the exit."""
    try:
        from ernerf_ti.cli.main import main as run

        return run()
    except KeyboardInterrupt:  # before the command line has begun to handle it
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    finally:
        # All is written and said. Another Ctrl-C while Python waits for threads and shuts down ends the process.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())
