"""Entry of the command line: a Ctrl-C while it loads ends it, without a traceback."""

import gc
import signal
from importlib import import_module


def main() -> None:
    """Load the command line and run it."""
    # Python's own handler would print where the import was; `cli.stop` sets those that clean up.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Until the body of the command is loaded (`cli.dispatch`): the collector would walk through all that stays.
    gc.disable()
    import_module("cli.main").main()


if __name__ == "__main__":
    main()
