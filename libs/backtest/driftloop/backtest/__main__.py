"""A backtest in a process of its own: ``python -m driftloop.backtest``.

Takes one line of JSON on stdin, a :class:`plan.Plan` (or, for a replay of the log,
a :class:`replay.ReplayPlan`), and answers with lines of JSON on what was
stdout: ``progress`` while it works, then ``result`` or ``refused``. What a library
prints goes to stderr.
"""

import json
import os
import signal
import sys
import threading
import time
import warnings
from typing import Any

from driftloop.backtest.errors import BacktestError

PARENT_POLL_S = 1.0


def main() -> int:
    """Read what is asked, work, and say what came of it."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(message: dict[str, Any]) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    _end_with_parent()
    warnings.filterwarnings("ignore", category=UserWarning)
    asked = json.loads(sys.stdin.readline())
    try:
        say({"type": "result", "result": _work(asked, say)})
    except BacktestError as error:
        say({"type": "refused", "error": str(error)})
        return 1
    return 0


def _end_with_parent() -> None:
    """End, with all processes of this one, once whoever started it is gone.

    Only where it leads a process group of its own, as the command line starts it.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_S)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    if os.getpgrp() == os.getpid():
        threading.Thread(target=watch, daemon=True).start()


def _work(asked: dict[str, Any], say: Any) -> dict[str, Any]:
    if asked.get("kind") == "replay":
        from driftloop.backtest.replay import ReplayPlan, replay

        return replay(ReplayPlan.model_validate(asked))
    from driftloop.backtest.page import write_page
    from driftloop.backtest.plan import Plan
    from driftloop.backtest.run import run

    plan = Plan.model_validate(asked)
    result = run(plan, say)
    if plan.html is not None:
        write_page(result, plan.html)
    return result


if __name__ == "__main__":
    sys.exit(main())
