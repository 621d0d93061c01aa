"""Scorers behind the load balancer of docker-compose.yml: no request is lost."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import grpc
import httpx
import pytest
from driftloop.contracts.events import ModelDeployed, ScorerReported
from driftloop.local.kafka import KafkaNode
from driftloop.local.processes import free_port
from driftloop.scorer.open_inference import open_inference_pb2 as pb

from tests.component.balancer import HAPROXY, NEEDED, Balancer, Names
from tests.component.support import TOKEN, ServiceProcess, open_events, wait_until
from tests.component.town import HEADERS, PAUSE_S, Clients, Town
from tests.unit.scorer.packages import Factory

pytestmark = [
    pytest.mark.slow,
    pytest.mark.broker,
    pytest.mark.timeout(400),
    pytest.mark.skipif(HAPROXY is None, reason=NEEDED),
]
HOSTS = ("127.0.0.2", "127.0.0.3")
UNREADY = "127.0.0.4"
NOBODY_BROKER = "127.0.0.1:1"
CONNECTIONS = 16
MIB = 1024 * 1024


def port_of_all() -> int:
    """Return a port that is free at each of the addresses."""
    while True:
        port = free_port()
        with suppress(OSError), ExitStack() as stack:
            for host in (*HOSTS, UNREADY):
                stack.enter_context(socket.create_server((host, port)))
            return port


@dataclass
class Installation:
    """Two scorers with a first version, each at an address of its own."""

    town: Town
    scorers: list[ServiceProcess]
    home: Path
    ports: tuple[int, int]

    @contextmanager
    def door(self, folder: Path, **changes: str) -> Iterator[Balancer]:
        """Put the balancer in front of both; wait until it knows them."""
        with (
            Names([*HOSTS]) as names,
            Balancer(folder, names, self.ports, changes) as door,
        ):
            wait_until(door.is_ready, "it is not ready")
            wait_until(lambda: door.answering() == 2, f"{door.answering()} are up")
            yield door

    def asking(self, door: Balancer) -> Clients:
        return Clients(self.town.name, [door], CONNECTIONS)


def scorer_at(
    host: str, broker: str, home: Path, ports: tuple[int, int]
) -> ServiceProcess:
    return ServiceProcess(
        "scorer",
        broker,
        home,
        replica=host,
        http_host=host,
        http_port=str(ports[0]),
        scorer_grpc_port=str(ports[1]),
        allowed_hosts=f'["localhost", "127.0.0.1", "{host}"]',
    )


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    home = tmp_path_factory.mktemp("home")
    ports = (port_of_all(), port_of_all())
    with KafkaNode(tmp_path_factory.mktemp("kafka")) as node, ExitStack() as stack:
        broker = node.bootstrap
        events = stack.enter_context(open_events(broker, home))
        deployer = stack.enter_context(ServiceProcess("deployer", broker, home))
        scorers = [
            stack.enter_context(scorer_at(host, broker, home, ports)) for host in HOSTS
        ]
        town = Town("door", events, Factory(home), deployer, scorers[0])
        town.first_version()
        wait_until(lambda: town.of(ModelDeployed), "no first version")
        wait_until(
            lambda: (
                {r.replica for r in town.of(ScorerReported) if r.versions} == set(HOSTS)
            ),
            "a scorer has not loaded the first version",
        )
        yield Installation(town, scorers, home, ports)


def question(pipeline: str) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=pipeline)
    size = request.inputs.add(name="size", datatype="FP64", shape=[1])
    size.contents.fp64_contents.append(1.0)
    colour = request.inputs.add(name="colour", datatype="BYTES", shape=[1])
    colour.contents.bytes_contents.append(b"red")
    return request


class RpcClient:
    """Asks over one gRPC connection all the time, as :class:`Clients` do by HTTP."""

    def __init__(self, pipeline: str, address: str) -> None:
        self.answers = 0
        self.failed: list[str] = []
        self._question = question(pipeline)
        self._address = address
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with grpc.insecure_channel(self._address) as channel:
            infer = channel.unary_unary(
                "/inference.GRPCInferenceService/ModelInfer",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=pb.ModelInferResponse.FromString,
            )
            metadata = [("authorization", f"Bearer {TOKEN}")]
            while not self._stopping.wait(PAUSE_S):
                try:
                    infer(self._question, metadata=metadata, timeout=120)
                    self.answers += 1
                except grpc.RpcError as error:
                    self.failed.append(str(error))

    def __enter__(self) -> RpcClient:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(180)


def lost(failed: list[str]) -> list[str]:
    """Leave out the one answer that a scorer may have been writing as it was killed.

    It writes one at a time; of that one the caller has the head already, so that it
    cannot be asked for again.
    """
    begun = [each for each in failed if "without sending complete message" in each]
    return [each for each in failed if each not in begun[:1]]


def killed_with_requests_in_hand(
    door: Balancer, scorer: ServiceProcess, clients: Clients, rpc: RpcClient
) -> None:
    """Kill a scorer that has taken requests and will never answer them."""
    before = len(clients.versions)
    wait_until(lambda: len(clients.versions) > before + 50, "nobody answers")
    scorer.freeze()
    wait_until(
        lambda: (
            door.figures("haproxy_backend_current_sessions") >= 1
            and len(clients.versions) > before + 100
        ),
        "nobody waits for it",
    )
    scorer.kill()
    answers, rpcs = len(clients.versions), rpc.answers
    wait_until(
        lambda: (
            clients.failed
            or (len(clients.versions) > answers + 200 and rpc.answers > rpcs + 20)
        ),
        "nobody answers after the kill",
    )


def test_nobody_notices_a_killed_scorer(
    installation: Installation, tmp_path: Path
) -> None:
    """What it had in hand is asked of the other one; it comes back and answers."""
    dying = installation.scorers[0]
    with installation.door(tmp_path) as door:
        with (
            installation.asking(door) as clients,
            RpcClient(installation.town.name, door.grpc) as rpc,
        ):
            killed_with_requests_in_hand(door, dying, clients, rpc)
            wait_until(lambda: door.answering() == 1, "it is taken for ready")
            dying.start()
            wait_until(lambda: door.answering() == 2, "it has not come back")
            answers = len(clients.versions)
            wait_until(lambda: len(clients.versions) > answers + 200, "no answers")
        assert (lost(clients.failed), rpc.failed) == ([], []), door.said()
        assert door.figures("haproxy_backend_retry_warnings_total") >= 1


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("retry-on conn-failure empty-response", "retry-on conn-failure"),
        ("retries 5", "retries 0"),
    ],
)
def test_without_retries_requests_are_lost(
    installation: Installation, tmp_path: Path, line: str, instead: str
) -> None:
    """Negative control: either kind of retry is needed."""
    dying = installation.scorers[0]
    try:
        with (
            installation.door(tmp_path, **{line: instead}) as door,
            installation.asking(door) as clients,
            RpcClient(installation.town.name, door.grpc) as rpc,
        ):
            killed_with_requests_in_hand(door, dying, clients, rpc)
        assert lost(clients.failed)
    finally:
        dying.start()


@pytest.mark.parametrize("is_checked", [True, False])
def test_a_scorer_that_is_not_ready_is_asked_nothing(
    installation: Installation, tmp_path: Path, is_checked: bool
) -> None:
    """Nor is one that comes later; and without the check both are (the control)."""
    unready = scorer_at(UNREADY, NOBODY_BROKER, installation.home, installation.ports)
    unready.launch()
    unasked = {
        "default-server check": "default-server",
        "default-server init-state down": "",
        "    default-server observe layer4 error-limit 1 on-error mark-down\n": "",
    }
    changes = {} if is_checked else unasked
    try:
        assert not unready.is_ready()
        with (
            Names([UNREADY]) as names,
            Balancer(tmp_path, names, installation.ports, changes) as door,
        ):
            if is_checked:
                wait_until(
                    lambda: door.figures("haproxy_server_check_status", state="L7STS"),
                    "it was not asked whether it is ready",
                )
                wait_until(lambda: door.answering() == 0, "it is taken for ready")
                assert not door.is_ready()
            names.addresses = [UNREADY, *HOSTS]
            wait_until(
                lambda: door.answering() == (2 if is_checked else 3),
                "not all are known",
            )
            with installation.asking(door) as clients:
                wait_until(
                    lambda: clients.failed or len(clients.versions) > 300, "no answers"
                )
            assert bool(clients.failed) is not is_checked
    finally:
        unready.kill()


def test_scorers_come_and_go(installation: Installation, tmp_path: Path) -> None:
    """The door follows the names: none is lost when one leaves them or joins."""
    with (
        Names([HOSTS[0]]) as names,
        Balancer(tmp_path, names, installation.ports) as door,
    ):
        wait_until(lambda: door.answering() == 1, "the first is not known")
        with installation.asking(door) as clients:
            names.addresses = [*HOSTS]
            wait_until(lambda: door.answering() == 2, "the second is not known")
            names.addresses = [HOSTS[1]]
            wait_until(lambda: door.answering() == 1, "the first is still known")
            answers = len(clients.versions)
            wait_until(lambda: len(clients.versions) > answers + 100, "no answers")
        assert clients.failed == []


def test_bounds_and_what_is_not_there(
    installation: Installation, tmp_path: Path
) -> None:
    """A body beyond the scorer's bound is refused unread; no page of figures."""
    with installation.door(tmp_path) as door, httpx.Client(timeout=60) as client:
        url = f"{door.url}/v2/models/{installation.town.name}/infer"
        for size, status in ((16 * MIB + 1, 413), (16 * MIB, 400)):
            answer = client.post(url, content=b" " * size, headers=HEADERS)
            assert answer.status_code == status, answer.text
        for path in ("/metrics", "/stats", "/haproxy?stats"):
            assert client.get(door.url + path).status_code == httpx.codes.NOT_FOUND
        assert client.get(f"{door.url}/v2/health/ready").status_code == httpx.codes.OK
        evil = client.get(f"{door.url}/ping", headers={"Host": "evil.example"})
        assert evil.status_code == httpx.codes.BAD_REQUEST  # the scorer looks at it


def test_a_request_keeps_its_id(installation: Installation, tmp_path: Path) -> None:
    """The caller's; one of the door's where the caller sends none."""
    body = {
        "inputs": [
            {"name": "size", "shape": [1], "datatype": "FP64", "data": [1.0]},
            {"name": "colour", "shape": [1], "datatype": "BYTES", "data": ["red"]},
        ]
    }
    with (
        installation.door(tmp_path) as door,
        httpx.Client(timeout=60, headers=HEADERS) as client,
    ):

        def told(**headers: str) -> str:
            url = f"{door.url}/v2/models/{installation.town.name}/infer"
            answer = client.post(url, json=body, headers=headers)
            name: str = answer.json()["id"]
            return name

        assert told(**{"X-Request-Id": "order-42"}) == "order-42"
        assert UUID(told()) != UUID(told())
