"""The entry point of the command `resnet`, and of `python -m resnetkit`, which torchrun starts."""

import os
import signal
import sys
from types import FrameType

__all__ = ["main"]


def main() -> None:
    """Runs the command and ends the process; an interruption never shows a traceback."""
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if interruptible:  # else it is ignored, as in a shell's background
        signal.signal(signal.SIGINT, leave)
    from resnetkit.cli.app import run

    # Threads that wait spin for some microseconds before they sleep: waking up costs more than
    # most waits, and spinning for long takes the core from others (figures in docs/log.md).
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    if interruptible:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    code = run(sys.argv[1:])
    if interruptible:
        signal.signal(signal.SIGINT, leave)
    sys.exit(code)


def leave(number: int, frame: FrameType | None) -> None:
    """Ends the process at once: nothing has begun yet, or everything is done."""
    os.write(2, b"resnet: interrupted.\n")
    os._exit(128 + number)


if __name__ == "__main__":
    main()
