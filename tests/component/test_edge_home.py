"""A runner and home: told once and for all, whatever is away, and never in the way."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import pytest
from driftloop.contracts.edge import EdgeReport

from tests.unit.edge.exported import VERSION, Runner, export, run
from tests.unit.scorer.packages import NAME, Factory
from tests.unit.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

REPORTS, ROWS = f"/v1/pipelines/{NAME}/edge-reports", "/observations?source=edge-line-4"
ASK = {"dataframe_records": [{"size": 1.0, "colour": "red"}]}


@dataclass
class Got:
    path: str
    body: bytes
    token: str | None
    status: int


@dataclass
class Home:
    """Ingest's door, as far as a runner sees it; its answers are what a test wants."""

    port: int = 0
    answers: list[int] = field(default_factory=list)
    got: list[Got] = field(default_factory=list)
    hang: threading.Event = field(default_factory=threading.Event)
    headers: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> Self:
        home = self
        self.hang.set()

        class Door(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                home.hang.wait(120)
                status = home.answers.pop(0) if home.answers else 202
                token = self.headers.get("Authorization")
                home.got.append(Got(self.path, body, token, status))
                self.send_response(status)
                for name, value in home.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Door)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.hang.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def taken(self, part: str = REPORTS) -> list[Any]:
        """Return what was taken, parsed."""
        bodies = [g.body for g in list(self.got) if part in g.path and g.status < 300]
        if part == REPORTS:
            return [json.loads(body) for body in bodies]
        return [json.loads(line) for body in bodies for line in body.splitlines()]


@pytest.fixture
def home() -> Iterator[Home]:
    with Home() as found:
        yield found


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Factory:
    return Factory(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def folder(factory: Factory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(factory, tmp_path_factory.mktemp("edge") / "x", factory.package())


def settings(home: Home, spool: Path, **more: object) -> dict[str, object]:
    return {
        "HOME": home.url,
        "NAME": "line-4",
        "SPOOL": spool,
        "REPORT_SECONDS": 1,
        "TOKEN": "a-token",
        **more,
    }


def rows_of(reports: list[Any]) -> int:
    return sum(report["row_count"] for report in reports)


def test_what_was_done_is_told(folder: Path, home: Home, tmp_path: Path) -> None:
    """Figures that home's contract takes, with the token, and rows where wished for."""
    with Runner(folder, **settings(home, tmp_path, SAMPLE_ROWS=2)) as runner:
        rows = [{"size": float(n), "colour": "red", "id": f"r{n}"} for n in range(3)]
        asked = runner.client.post("/invocations", json={"dataframe_records": rows})
        assert asked.status_code == 200, asked.text
        assert runner.client.post("/invocations", json={}).status_code == 400
        wait_until(lambda: rows_of(home.taken()) == 3)
        wait_until(lambda: len(home.taken(ROWS)) == 2)
        page = runner.client.get("/metrics").text
    [report] = [r for r in home.taken() if r["row_count"]]
    told = EdgeReport.model_validate(report)
    assert (told.edge, told.version) == ("line-4", VERSION)
    assert told.request_count == 2
    assert told.refused_count == 1
    assert told.sampled_row_count == 2
    assert told.software["onnxruntime"]
    assert not told.model_extra
    assert {got.token for got in home.got} == {"Bearer a-token"}
    for row in home.taken(ROWS):
        assert set(row) == {"id", "event_time", "size", "colour"}
        assert row["id"] == f"r{int(row['size'])}"
    assert 'driftloop_edge_sent_total{pipeline="bike-demand",outcome="taken"}' in page


def test_it_waits_for_home_and_tells_once(
    folder: Path, home: Home, tmp_path: Path
) -> None:
    """Home is away, then answers badly, then well: the same report, in its order."""
    home.answers = [503, 401, 302]
    home.headers = {"Location": "/elsewhere"}
    with Runner(folder, **settings(home, tmp_path)) as runner:
        runner.client.post("/invocations", json=ASK).raise_for_status()
        wait_until(lambda: rows_of(home.taken()) == 1, 120)
    sent = [json.loads(got.body)["report_id"] for got in home.got]
    assert [got.status for got in home.got][:3] == [503, 401, 302]
    assert len(set(sent[:4])) == 1
    assert len({r["report_id"] for r in home.taken()}) == len(home.taken())
    assert {got.path for got in home.got} == {REPORTS}  # nothing went elsewhere


def test_a_killed_runner_has_told_or_tells(
    folder: Path, home: Home, tmp_path: Path
) -> None:
    """kill -9 with reports that wait; the next runner tells them, each id once."""
    away = settings(home, tmp_path, HOME="http://127.0.0.1:9")
    for count in (5, 10):
        with Runner(folder, **away) as runner:
            for _ in range(5):
                runner.client.post("/invocations", json=ASK).raise_for_status()
            wait_until(partial(is_kept, tmp_path, count))
            runner.kill()
    code, said = run(folder, "send", **settings(home, tmp_path))
    assert code == 0, said
    assert "all is at home" in said
    assert rows_of(home.taken()) == 10
    ids = [report["report_id"] for report in home.taken()]
    assert len(set(ids)) == len(ids)
    assert not list(tmp_path.glob("*report*"))
    code, said = run(folder, "send", **away)  # nothing waits, so home is not asked
    assert code == 0, said


def is_kept(spool: Path, count: int) -> bool:
    """Whether reports on disk tell of so many rows."""
    found = 0
    for path in spool.glob("*.json"):
        content = json.loads(path.read_bytes())
        report = content.get("report", content) if isinstance(content, dict) else {}
        found += int(report.get("row_count", 0))
    return found == count


def test_what_home_will_never_take_is_counted(
    folder: Path, home: Home, tmp_path: Path
) -> None:
    home.answers = [422]
    with Runner(folder, **settings(home, tmp_path)) as runner:
        runner.client.post("/invocations", json=ASK).raise_for_status()
        wait_until(lambda: bool(sum(r["lost_report_count"] for r in home.taken())))
    assert sum(report["lost_report_count"] for report in home.taken()) == 1


def test_a_home_that_hangs_holds_up_nobody(
    folder: Path, home: Home, tmp_path: Path
) -> None:
    """Answers come while a report is being sent that home does not answer."""
    home.hang.clear()
    with Runner(folder, **settings(home, tmp_path)) as runner:
        runner.client.post("/invocations", json=ASK).raise_for_status()
        wait_until(lambda: bool(list(tmp_path.glob("*report*"))))
        for _ in range(50):
            runner.client.post("/invocations", json=ASK).raise_for_status()
        assert not home.got  # still hanging
        home.hang.set()
        wait_until(lambda: rows_of(home.taken()) == 51, 120)


def test_a_spool_that_is_gone_holds_up_nobody(
    folder: Path, home: Home, tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    with Runner(folder, **settings(home, spool)) as runner:
        wait_until(lambda: bool(home.taken()))
        for path in spool.iterdir():
            path.unlink()
        spool.rmdir()

        def asked_and_told() -> bool:
            runner.client.post("/invocations", json=ASK).raise_for_status()
            return "the spool cannot be written" in runner.said

        wait_until(asked_and_told)
        spool.mkdir()
        wait_until(lambda: rows_of(home.taken()) > 0)


def test_a_file_scored_offline_is_told_later(
    folder: Path, home: Home, tmp_path: Path
) -> None:
    """The figures wait in the spool until somebody sends them."""
    (tmp_path / "in.csv").write_text("size,colour\n1,red\n2,blue\n")
    words = ("score", str(tmp_path / "in.csv"), str(tmp_path / "out.csv"))
    code, said = run(folder, *words, **settings(home, tmp_path / "spool"))
    assert code == 0, said
    assert home.got == []
    away = settings(home, tmp_path / "spool", HOME="http://127.0.0.1:9")
    code, said = run(folder, "send", **away)
    assert code == 3
    assert "1 left to send; home does not answer" in said
    assert run(folder, "send", **settings(home, tmp_path / "spool"))[0] == 0
    assert rows_of(home.taken()) == 2


def test_it_says_that_it_is_there(folder: Path, home: Home, tmp_path: Path) -> None:
    """Without any request, once."""
    with Runner(folder, **settings(home, tmp_path)):
        wait_until(lambda: bool(home.taken()))
    [sign] = home.taken()
    assert sign["request_count"] == 0
    EdgeReport.model_validate(sign)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"HOME": "http://home.example"}, "would send the token unencrypted"),
        ({"HOME": "ftp://home"}, "is no http:// or https:// address"),
        ({"NAME": "line 4"}, "--name 'line 4': up to 63 letters"),
        ({"SAMPLE_ROWS": 5000}, "5000 is not 0 to 1000"),
    ],
)
def test_settings_that_are_wrong_are_named(
    folder: Path, home: Home, tmp_path: Path, change: dict[str, object], words: str
) -> None:
    code, said = run(folder, "send", **settings(home, tmp_path, **change))
    assert code != 0
    assert words in said


def test_rows_with_personal_data_stay(
    factory: Factory, home: Home, tmp_path: Path
) -> None:
    """Not one is kept on the disk of the edge; figures are."""
    rules = {"data": {"id": "id", "time": "t", "privacy": {"size": {"do": "drop"}}}}
    folder = export(factory, tmp_path / "private", factory.package(), spec=rules)
    spool = tmp_path / "spool"
    code, said = run(folder, "send", **settings(home, spool, SAMPLE_ROWS=5))
    assert code == 1
    assert "rules for personal data (size), so no rows are kept here" in said
    assert run(folder, "send", **settings(home, spool))[0] == 0
