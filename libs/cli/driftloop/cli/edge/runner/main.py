"""What the runner is asked on its command line, and by its environment."""

import argparse
import os
import platform
import re
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from . import VERSION
from .answering import Desk
from .errors import BadRequest, ModelFailed, Refused
from .figures import Figures
from .home import LOOPBACK, Door, Reporter
from .model import Model, check_samples
from .offline import score_file
from .package import Package, open_package
from .server import Rules, Server
from .spool import Spool

PREFIX = "DRIFTLOOP_EDGE_"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,62}")
"""As home's contract has it."""
MIB = 1024 * 1024
DEFAULT_PORT = 7003
MAX_SAMPLE_ROWS = 1000
EXIT_OK, EXIT_REFUSED, EXIT_LEFT = 0, 1, 3
YES = frozenset({"1", "yes", "true", "on"})


def main(folder: Path, files: dict[str, bytes], words: Sequence[str]) -> int:
    """Do what is asked; return the exit code.

    Parameters
    ----------
    files : of the export, each found to be what was exported; emptied, so that a
        model is not in memory twice.
    """
    onnxruntime.disable_telemetry_events()
    options = _parser(folder).parse_args(words)
    try:
        package = open_package(files, options.signer)
        model = Model(package.model, package.inputs, options.threads)
        package = replace(package, model=b"")
        files.clear()
        count = check_samples(model, package.samples, package.tolerance)
        _say(
            f"{package.pipeline}/{package.version}, package {package.digest[:12]}, "
            f"signed by {package.signer}: {count} samples answered as expected"
        )
        if package.forced is not None:
            _say(f"exported although {package.forced}")
        code: int = options.action(options, package, model)
    except (Refused, BadRequest, ModelFailed) as error:
        _say(f"refused: {error}")
        return EXIT_REFUSED
    return code


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _setting(name: str, default: Any = None) -> Any:
    return os.environ.get(PREFIX + name) or default


def _is_set(name: str) -> bool:
    return str(_setting(name, "")).lower() in YES


def _parser(folder: Path) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="runner.py",
        description="Answers with an exported model.",
        epilog="Each option may be an environment variable too: --report-seconds is "
        f"{PREFIX}REPORT_SECONDS.",
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--signer", default=_setting("SIGNER"), help="id of the only key to believe"
    )
    common.add_argument(
        "--threads",
        type=_number(1, 256),
        default=_setting("THREADS", "1"),
        help="of one call",
    )
    home = argparse.ArgumentParser(add_help=False)
    _home_options(home, folder)
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    check = actions.add_parser("check", parents=[common], help="verify and try it")
    check.set_defaults(action=_check)
    score = actions.add_parser(
        "score", parents=[common, home], help="answer a CSV file"
    )
    score.add_argument("source", metavar="IN.csv", type=Path)
    score.add_argument("target", metavar="OUT.csv", type=Path)
    score.set_defaults(action=_score)
    send = actions.add_parser(
        "send", parents=[common, home], help="send home what waits, and end"
    )
    send.set_defaults(action=_send)
    serve = actions.add_parser(
        "serve", parents=[common, home], help="answer requests by HTTP"
    )
    _serve_options(serve)
    serve.set_defaults(action=_serve)
    return parser


def _home_options(parser: argparse.ArgumentParser, folder: Path) -> None:
    parser.add_argument(
        "--home", default=_setting("HOME"), help="address of ingest at home"
    )
    parser.add_argument(
        "--name",
        default=_setting("NAME", socket.gethostname()[:63].lower()),
        help="name of this runner at home; default: the machine's",
    )
    parser.add_argument(
        "--token-file", type=Path, default=_setting("TOKEN_FILE"),
        help=f"token for home; or {PREFIX}TOKEN",
    )  # fmt: skip
    parser.add_argument(
        "--ca-file",
        type=Path,
        default=_setting("CA_FILE"),
        help="that home's TLS is of",
    )
    parser.add_argument(
        "--plain-home", action="store_true", default=_is_set("PLAIN_HOME"),
        help="send the token without TLS",
    )  # fmt: skip
    parser.add_argument(
        "--spool", type=Path, default=_setting("SPOOL", str(folder / "spool")),
        help="folder of what waits to be sent",
    )  # fmt: skip
    parser.add_argument(
        "--spool-bytes", type=_number(100_000, 2**40),
        default=_setting("SPOOL_BYTES", str(16 * MIB)), help="its greatest size",
    )  # fmt: skip
    parser.add_argument(
        "--report-seconds", type=_number(1, 86_400),
        default=_setting("REPORT_SECONDS", "900"), help="between two reports",
    )  # fmt: skip
    parser.add_argument(
        "--sample-rows", type=_number(0, MAX_SAMPLE_ROWS),
        default=_setting("SAMPLE_ROWS", "0"), help="rows sent home with each report",
    )  # fmt: skip


def _serve_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default=_setting("HOST", "127.0.0.1"))
    parser.add_argument(
        "--port", type=_number(0, 65_535), default=_setting("PORT", str(DEFAULT_PORT))
    )
    parser.add_argument(
        "--max-body-bytes", type=_number(1, 2**31),
        default=_setting("MAX_BODY_BYTES", str(16 * MIB)),
    )  # fmt: skip
    parser.add_argument(
        "--answer-token-file", type=Path, default=_setting("ANSWER_TOKEN_FILE"),
        help=f"token that callers have to send; or {PREFIX}ANSWER_TOKEN",
    )  # fmt: skip
    parser.add_argument(
        "--without-token", action="store_true", default=_is_set("WITHOUT_TOKEN"),
        help="let anybody ask who reaches --host",
    )  # fmt: skip


def _number(least: int, most: int) -> Any:
    def number(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{value} is not {least} to {most}")
        return value

    return number


def _check(options: argparse.Namespace, package: Package, model: Model) -> int:
    del options, package, model  # all that is to be checked was
    return EXIT_OK


def _score(options: argparse.Namespace, package: Package, model: Model) -> int:
    with _Reports(options, package) as reports:
        desk = Desk(package, model, reports.figures, options.name)
        count, failed = score_file(desk, options.source, options.target)
    without = f", {failed} without a finite answer" if failed else ""
    _say(f"{count} rows{without}; wrote {options.target}")
    return EXIT_OK


def _send(options: argparse.Namespace, package: Package, model: Model) -> int:
    del model
    if not options.home:
        raise Refused(f"say where home is: --home, or {PREFIX}HOME")
    with _Reports(options, package) as reports:
        assert reports.reporter is not None  # noqa: S101 - there is a home
        left = reports.reporter.send_all()
        problem = reports.reporter.problem
    _say(f"{left} left to send; {problem}" if left else "all is at home")
    return EXIT_LEFT if left else EXIT_OK


class _Reports:
    """What is told at home: figures, and what sends them where there is a home.

    Parameters
    ----------
    is_sending : whether a thread sends them now; else they wait.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        package: Package,
        *,
        is_sending: bool = False,
    ) -> None:
        self.reporter: Reporter | None = None
        self._is_sending = is_sending
        if options.sample_rows and package.home.private:
            raise Refused(
                "--sample-rows: the pipeline has rules for personal data "
                f"({', '.join(package.home.private)}), so no rows are kept here; "
                "figures are sent without"
            )
        self.figures = Figures(options.sample_rows if options.home else 0)
        if not options.home:
            return
        _check_edge(options.name)
        door = Door(
            options.home, options.name, package.pipeline, options.token_file,
            _setting("TOKEN"), options.ca_file, options.plain_home,
        )  # fmt: skip
        door.check()
        self.spool = Spool(options.spool, options.spool_bytes, self.figures.lost)
        about = {
            "edge": options.name,
            "version": package.version,
            "package_digest": package.digest,
            "software": {
                "runner": VERSION,
                "python": platform.python_version(),
                "onnxruntime": onnxruntime.__version__,
                "numpy": np.__version__,
            },
        }
        self.reporter = Reporter(
            self.figures, self.spool, door, about, options.report_seconds, _say
        )

    def __enter__(self) -> "_Reports":
        if self.reporter is not None:
            self.reporter.start(is_sending=self._is_sending)
        return self

    def __exit__(self, *_: object) -> None:
        if self.reporter is not None:
            self.reporter.stop()

    def state(self) -> tuple[int, int, int]:
        """Return bytes that wait, files sent, and files refused for good."""
        if self.reporter is None:
            return 0, 0, 0
        reporter = self.reporter
        return self.spool.size_bytes(), reporter.sent_count, reporter.refused_count


def _check_edge(name: str) -> None:
    if NAME.fullmatch(name) is None:
        raise Refused(
            f"--name {name!r:.80}: up to 63 letters, digits, dots and hyphens, and "
            "unlike any other runner's at home"
        )


def _serve(options: argparse.Namespace, package: Package, model: Model) -> int:
    is_loopback = options.host in LOOPBACK
    token_file = options.answer_token_file
    try:
        token = (
            token_file.read_text(encoding="utf-8").strip()
            if token_file
            else _setting("ANSWER_TOKEN")
        )
    except OSError as error:
        raise Refused(f"--answer-token-file: {error}") from error
    if not is_loopback and not token and not options.without_token:
        raise Refused(
            f"--host {options.host} lets other machines ask: give --answer-token-file, "
            "or --without-token where whoever reaches it may ask"
        )
    with _Reports(options, package, is_sending=True) as reports:
        desk = Desk(package, model, reports.figures, options.name)
        rules = Rules(options.max_body_bytes, token or None, is_loopback, reports.state)
        try:
            server = Server((options.host, options.port), desk, rules)
        except OSError as error:
            raise Refused(
                f"port {options.port} of {options.host} cannot be used: {error}"
            ) from error
        with server:
            _until_told(server)
    return EXIT_OK


def _until_told(server: Server) -> None:
    """Serve until a signal; requests in work are answered."""

    def stop(*_: object) -> None:
        threading.Thread(target=server.shutdown).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    host, port = server.server_address[:2]
    shown = f"[{host!s}]" if ":" in str(host) else str(host)
    _say(f"answering at http://{shown}:{port}")
    server.serve_forever(poll_interval=0.2)
    server.drain()
