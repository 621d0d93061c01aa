"""Several scorers of one machine answer at one port, whoever of them is killed."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from driftloop.contracts.events import ModelDeployed, ScorerReported
from driftloop.local.kafka import KafkaNode
from support import plain

from tests.component.support import ServiceProcess, open_events, wait_until
from tests.component.town import HEADERS, PAUSE_S, Town
from tests.unit.scorer.packages import Factory

pytestmark = [pytest.mark.slow, pytest.mark.broker, pytest.mark.timeout(600)]
REPLICAS = ("0", "1")
ROWS = re.compile(
    r"^driftloop_scorer_rows_total\{[^}]*requests[^}]*\} (\S+)", re.MULTILINE
)


class Door:
    """The socket that scorers share, and those who ask there all the time.

    Attributes
    ----------
    answers : how many were whole and right.
    cut : requests whose connection was cut, which were then sent again.
    refused : connections that nobody took; other answers than 200.
    """

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.answers = self.cut = 0
        self.refused: list[str] = []
        self._lock = threading.Lock()

    def ask(self, pipeline: str, until: Callable[[], bool]) -> None:
        """Ask over sixteen connections until something has happened.

        Half of them stay open; the others are made anew for each request.
        """
        stopping = threading.Event()
        threads = [
            threading.Thread(target=self._ask, args=(pipeline, stopping, headers))
            for headers in [HEADERS, HEADERS | {"Connection": "close"}] * 8
        ]
        for thread in threads:
            thread.start()
        try:
            wait_until(until, f"{self.answers} answers, {self.refused[:3]}")
        finally:
            stopping.set()
            for thread in threads:
                thread.join(120)

    def _ask(
        self, pipeline: str, stopping: threading.Event, headers: dict[str, str]
    ) -> None:
        body = {
            "inputs": [
                {"name": "size", "shape": [1], "datatype": "FP64", "data": [1.0]},
                {"name": "colour", "shape": [1], "datatype": "BYTES", "data": ["red"]},
            ]
        }
        url = f"{self.url}/v2/models/{pipeline}/infer"
        with httpx.Client(headers=headers, timeout=100) as client:
            while not stopping.wait(PAUSE_S):
                self._one(client, url, body)

    def _one(self, client: httpx.Client, url: str, body: object) -> None:
        while True:
            try:
                answer = client.post(url, json=body)
            except httpx.ConnectError as error:
                self.refused.append(repr(error))
                return
            except httpx.TransportError:
                with self._lock:
                    self.cut += 1
                continue
            if answer.status_code != httpx.codes.OK:
                self.refused.append(f"{answer.status_code}: {answer.text:.200}")
                return
            with self._lock:
                self.answers += 1
            return


@pytest.fixture
def door() -> Iterator[Door]:
    found = Door()
    yield found
    found.socket.close()


def answered_by(scorer: ServiceProcess) -> float:
    """Return how many rows of requests a process says it has answered."""
    told = plain.get(f"{scorer.url}/metrics", headers=HEADERS, timeout=100).text
    return sum(map(float, ROWS.findall(told)))


def test_a_scorer_that_is_killed_leaves_its_connections_to_the_others(
    tmp_path_factory: pytest.TempPathFactory,
    door: Door,
    unique_name: Callable[[str], str],
) -> None:
    """Nobody is refused: not while one is dead, nor while it starts again."""
    home: Path = tmp_path_factory.mktemp("home")
    number = door.socket.fileno()
    with KafkaNode(tmp_path_factory.mktemp("kafka")) as node, ExitStack() as stack:
        address = node.bootstrap
        events = stack.enter_context(open_events(address, home))
        deployer = stack.enter_context(ServiceProcess("deployer", address, home))
        scorers = [
            stack.enter_context(
                ServiceProcess(
                    "scorer",
                    address,
                    home,
                    [number],
                    replica=name,
                    scorer_shared_fd=str(number),
                )
            )
            for name in REPLICAS
        ]
        town = Town(unique_name("door"), events, Factory(home), deployer, scorers[0])
        town.first_version()
        wait_until(lambda: town.of(ModelDeployed), "no first version")
        wait_until(
            lambda: (
                {r.replica for r in town.of(ScorerReported) if r.versions}
                == set(REPLICAS)
            ),
            "a replica has not loaded the first version",
        )
        door.ask(town.name, lambda: all(answered_by(one) > 50 for one in scorers))
        assert (door.cut, door.refused) == (0, [])

        def is_back() -> bool:
            before = door.answers
            scorers[0].kill()
            wait_until(lambda: door.answers > before + 200, "nobody answers")
            scorers[0].start()
            wait_until(lambda: answered_by(scorers[0]) > 0, "it has nothing to do")
            return True

        door.ask(town.name, is_back)
        assert door.refused == []
        assert door.cut <= 16
        assert answered_by(scorers[1]) > 250


def test_without_the_socket_a_scorer_says_so(tmp_path: Path) -> None:
    """The control: a number that is no listening socket is refused at the start."""
    scorer = ServiceProcess("scorer", "127.0.0.1:1", tmp_path, scorer_shared_fd="77")
    with pytest.raises(AssertionError, match="DRIFTLOOP_SCORER_SHARED_FD=77"):
        scorer.start()
