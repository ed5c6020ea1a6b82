"""Commands that stand for servers in the tests."""

import sys

SLEEP = (sys.executable, "-c", "import time; time.sleep(300)")
FAILING = (sys.executable, "-c", "import sys; print('no such door'); sys.exit(1)")
MARK = ("RADLOOP_STACK", "mark-of-this-test")
PORTS = dict.fromkeys(("prefect", "mlflow", "ray"))
