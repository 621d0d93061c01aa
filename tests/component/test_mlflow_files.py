"""Files of runs and logged models: MLflow's own client, tricks with paths, kills."""

from __future__ import annotations

import http.client
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from driftloop.contracts.events import TrackingChanged
from driftloop.local.kafka import KafkaNode
from driftloop.runtime.admin import create_topics

from tests.component.mlflow_client import CLIENT, QUIET
from tests.component.processes import TOKEN, Log, ServiceProcess
from tests.unit.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.broker]
API = "/api/2.0/mlflow"
PROXY = "/api/2.0/mlflow-artifacts"
FILE_LIMIT = 3_000_000
MINE, OTHERS = b"mine alone", b"another run's secret"


class Place:
    """A registry with narrow limits, and two runs."""

    def __init__(self, node: KafkaNode, folder: Path) -> None:
        create_topics(node.bootstrap)
        self.home = folder / "home"
        self.log = Log(node.bootstrap, self.home)
        self.registry = ServiceProcess(
            "registry",
            self.home,
            node.bootstrap,
            MLFLOW_FILE_MAX_BYTES=FILE_LIMIT,
            MLFLOW_OWNER_MAX_BYTES=2 * FILE_LIMIT,
            MLFLOW_OWNER_MAX_FILES=20,
        )

    def start(self) -> None:
        self.registry.start()
        self.run, self.other = self.new_run(), self.new_run()
        assert self.put(f"0/{self.run}/artifacts/mine.txt", MINE).status_code == 200
        assert self.put(f"0/{self.other}/artifacts/x.txt", OTHERS).status_code == 200

    @property
    def client(self) -> httpx.Client:
        return self.registry.client

    def new_run(self) -> str:
        answer = self.client.post(f"{API}/runs/create", json={"experiment_id": "0"})
        name: str = answer.json()["run"]["info"]["run_id"]
        return name

    def put(self, place: str, data: bytes) -> httpx.Response:
        return self.client.put(f"{PROXY}/artifacts/{place}", content=data)

    def names(self, run: str) -> list[str]:
        answer = self.client.get(f"{API}/artifacts/list", params={"run_id": run})
        return [file["path"] for file in answer.json().get("files", [])]

    def raw(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Send a path as it is: no client of ours puts it right."""
        connection = http.client.HTTPConnection("127.0.0.1", self.registry.port, 30)
        connection.putrequest(method, path, skip_host=False)
        connection.putheader("Authorization", f"Bearer {TOKEN}")
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, content

    def events(self, owner: str) -> list[Any]:
        found = self.log.read(TrackingChanged)
        changes = [e.change for e in found if isinstance(e, TrackingChanged)]
        return [c for c in changes if getattr(c, "owner", "") == owner]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("files")
    with KafkaNode(folder / "kafka") as node:
        found = Place(node, folder)
        found.start()
        with_process = found.registry
        yield found
        if with_process.exit_code() is None:
            with_process.kill()
        with_process.client.close()
        found.log.close()


TRICKS = [
    "0/{run}/artifacts/../../{other}/artifacts/x.txt",
    "0/{run}/artifacts/%2e%2e/%2e%2e/{other}/artifacts/x.txt",
    "0/{run}/artifacts/..%2F..%2F{other}%2Fartifacts%2Fx.txt",
    "0/{run}/artifacts/%252e%252e/%252e%252e/{other}/artifacts/x.txt",
    "0/{run}/artifacts/%25252e%25252e%25252fx.txt",
    "0/{run}/artifacts/..%5C..%5C{other}%5Cartifacts%5Cx.txt",
    "0/{run}/artifacts/..\\..\\{other}\\artifacts\\x.txt",
    "0/{run}/artifacts/a;/../../{other}/artifacts/x.txt",
    "0/{run}/artifacts;/../{other}/artifacts/x.txt",
    "0/{run}/artifacts/mine.txt%23/../../../{other}/artifacts/x.txt",
    "0/{run}/artifacts/mine.txt%23",
    "0/{run}/artifacts/mine.txt%3F",
    "0/{run}/artifacts/mine.txt?/../x",
    "0/{run}/artifacts/mine.txt;v=1",
    "0/{run}/artifacts/mine.txt%00.png",
    "0/{run}/artifacts/mine.txt%0A",
    "0/{run}/artifacts//mine.txt",
    "0/{run}/artifacts/./mine.txt",
    "0/{run}//artifacts/mine.txt",
    "/etc/passwd",
    "//etc/passwd",
    "%2Fetc%2Fpasswd",
    "../../../../../../etc/passwd",
    "0/../../../../etc/passwd",
    "file:///etc/passwd",
    "file:%2F%2F%2Fetc%2Fpasswd",
    "http://127.0.0.1/x",
    "C:%5CWindows%5Cwin.ini",
    "C:/Windows/win.ini",
    "1/{run}/artifacts/mine.txt",
    "0/models/{run}/artifacts/mine.txt",
    "0/models/m-{run}/artifacts/mine.txt",
    "0/{run}/mine.txt",
    "0/{run}/artifacts~/mine.txt",
    "0/{run}/artifacts/%EF%BC%8E%EF%BC%8E/x.txt",
    "0/{run}/artifacts/%C0%AE%C0%AE/x.txt",
    "%EF%BC%90/{run}/artifacts/mine.txt",
    "0/{upper}/artifacts/mine.txt",
]


@pytest.mark.parametrize("trick", TRICKS)
def test_no_trick_with_a_path_leads_anywhere(place: Place, trick: str) -> None:
    """Read, written, deleted or listed: refused, with a reason, and nothing given."""
    path = trick.format(run=place.run, other=place.other, upper=place.run.upper())
    sent = path.encode().decode("latin-1")
    for method in ("GET", "PUT", "DELETE"):
        status, content = place.raw(method, f"{PROXY}/artifacts/{sent}", b"changed")
        assert status in {400, 404}, (method, content)
        assert b"error_code" in content
        assert OTHERS not in content
        assert b"root:" not in content
    status, content = place.raw("GET", f"{PROXY}/artifacts?path={sent}")
    assert status in {400, 404} or b"x.txt" not in content, content
    below = sent.partition("artifacts/")[2]
    if below:
        for query in (
            f"/get-artifact?run_id={place.run}&path={below}",
            f"{API}/artifacts/list?run_id={place.run}&path={below}",
        ):
            status, content = place.raw("GET", query)
            assert OTHERS not in content
            assert b"x.txt" not in content or status >= 400, content
    for run, name, data in (
        (place.run, "mine.txt", MINE),
        (place.other, "x.txt", OTHERS),
    ):
        assert place.names(run) == [name]
        url = f"{PROXY}/artifacts/0/{run}/artifacts/{name}"
        assert place.client.get(url).content == data


def test_what_is_no_trick_works(place: Place) -> None:
    """Negative control: names that look odd come back as they went."""
    run = place.new_run()
    names = [
        "a b.txt",
        "..a",
        "a..b",
        "ä/ß.txt",
        "数据.csv",
        "k=v/x@2 (1).png",
        "é~'$&",
    ]
    for number, name in enumerate(names):
        answer = place.put(f"0/{run}/artifacts/{name}", b"%d" % number)
        assert answer.status_code == 200, answer.text
    for number, name in enumerate(names):
        answer = place.client.get(f"{PROXY}/artifacts/0/{run}/artifacts/{name}")
        assert answer.content == b"%d" % number
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-disposition"].startswith("attachment;")


def test_every_route_asks_for_the_token(place: Place) -> None:
    """Of the OpenAPI document all; a part's route asks for the part's grant."""
    paths = place.client.get("/openapi.json").json()["paths"]
    found = [(p, m) for p, methods in paths.items() if "artifact" in p for m in methods]
    assert len(found) >= 12
    with httpx.Client(base_url=place.registry.url) as nobody:
        for path, method in found:
            url = path.replace("{number}", "1").replace("{upload_id}", "x.y")
            answer = nobody.request(method, url, json={})
            wanted = 403 if "/parts/" in path else 401
            assert answer.status_code == wanted, (method, path)


def test_limits(place: Place) -> None:
    """Too large, too much, too many: refused, and nothing of it is kept."""
    run = place.new_run()
    at = f"0/{run}/artifacts"
    large = place.put(f"{at}/large", b"x" * (FILE_LIMIT + 1))
    assert f"more than {FILE_LIMIT} bytes" in large.json()["message"]

    def unsaid() -> Iterator[bytes]:  # no Content-Length to tell beforehand
        for _ in range(5):
            yield b"x" * 1_000_000

    url = f"{PROXY}/artifacts/{at}/large"
    streamed = place.client.put(url, content=unsaid())
    assert streamed.json()["error_code"] == "INVALID_PARAMETER_VALUE"
    for number in range(2):
        assert (
            place.put(f"{at}/{number}", b"%d" % number * FILE_LIMIT).status_code == 200
        )
    over = place.put(f"{at}/third", b"x")
    assert "at most 6000000" in over.json()["message"]
    assert place.names(run) == ["0", "1"]
    many = place.new_run()
    for number in range(20):
        assert place.put(f"0/{many}/artifacts/{number}", b"x").status_code == 200
    answer = place.put(f"0/{many}/artifacts/another", b"x")
    assert "has 20 files" in answer.json()["message"]
    assert place.put(f"0/{many}/artifacts/7", b"anew").status_code == 200


def test_a_file_is_no_folder(place: Place) -> None:
    """A client could not keep both on its disk."""
    run = place.new_run()
    assert place.put(f"0/{run}/artifacts/a/b", b"1").status_code == 200
    assert "is a folder" in place.put(f"0/{run}/artifacts/a", b"2").json()["message"]
    deeper = place.put(f"0/{run}/artifacts/a/b/c/d", b"3")
    assert "'a/b' is a file" in deeper.json()["message"]


def test_put_away_is_read_only(place: Place) -> None:
    """Files of a deleted run can be read, not changed; nobody's are not there."""
    run = place.new_run()
    url = f"{PROXY}/artifacts/0/{run}/artifacts/a"
    assert place.client.put(url, content=b"1").status_code == 200
    place.client.post(f"{API}/runs/delete", json={"run_id": run})
    assert place.client.get(url).content == b"1"
    for method in ("PUT", "DELETE"):
        answer = place.client.request(method, url, content=b"2")
        assert "restore it first" in answer.json()["message"]
    nobody = place.client.get(url.replace(run, "f" * 32))
    assert nobody.json()["error_code"] == "RESOURCE_DOES_NOT_EXIST"


def test_other_bytes_are_not_given_out(place: Place) -> None:
    """Changed, cut or gone on the disk: an error, not one byte of it."""
    run = place.new_run()
    data = b"the right bytes" * 100_000
    url = f"{PROXY}/artifacts/0/{run}/artifacts/a.bin"
    assert place.client.put(url, content=data).status_code == 200
    (stored,) = place.events(run)
    object_ = next((place.home / "artifacts/mlflow").rglob(stored.sha256))
    for wrong in (data[:-1] + b"!", data[:-1], data + b"!", None):
        object_.write_bytes(wrong) if wrong is not None else object_.unlink()
        answer = place.client.get(url)
        assert answer.status_code == 500
        assert answer.json()["error_code"] == "DATA_LOSS"
        assert b"the right bytes" not in answer.content
    object_.write_bytes(data)
    assert place.client.get(url).content == data


def test_the_same_bytes_again_are_no_event(place: Place) -> None:
    """A client that repeats changes nothing; other bytes are the newest."""
    run = place.new_run()
    for data in (b"1", b"1", b"2"):
        assert place.put(f"0/{run}/artifacts/a", data).status_code == 200
    assert [change.kind for change in place.events(run)] == ["file-stored"] * 2
    got = place.client.get(f"{PROXY}/artifacts/0/{run}/artifacts/a")
    assert got.content == b"2"
    gone = place.client.delete(f"{PROXY}/artifacts/0/{run}/artifacts/")
    assert gone.status_code == 200
    assert place.names(run) == []


def begun(place: Place, run: str, parts: int, name: str = "big.bin") -> dict[str, Any]:
    answer = place.client.post(
        f"{PROXY}/mpu/create/0/{run}/artifacts/deep",
        json={"path": f"/home/ann/{name}", "num_parts": parts},
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def sent(credential: dict[str, Any], data: bytes) -> httpx.Response:
    return httpx.put(credential["url"], content=data, headers=credential["headers"])


def finished(
    place: Place, run: str, upload: dict[str, Any], tags: list[str]
) -> httpx.Response:
    return place.client.post(
        f"{PROXY}/mpu/complete/0/{run}/artifacts/deep",
        json={
            "path": "big.bin",
            "upload_id": upload["upload_id"],
            "parts": [{"part_number": n, "etag": t} for n, t in enumerate(tags, 1)],
        },
    )


def test_parts_of_one_upload_only(place: Place) -> None:
    """Another's grant, number, tag or digest opens nothing; nothing is half there."""
    run = place.new_run()
    upload = begun(place, run, 2)
    first, second = upload["credentials"]
    tags = [sent(first, b"1" * 10).headers["etag"]]
    wrong = {**second, "headers": first["headers"]}
    assert sent(wrong, b"2").status_code == 403
    assert httpx.put(second["url"], content=b"2").status_code == 403
    assert place.names(run) == []
    assert finished(place, run, upload, tags).status_code == 400
    tags.append(sent(second, b"2" * 10).headers["etag"])
    for bad in (tags[::-1], [tags[0]] * 2, [*tags, tags[0]]):
        assert finished(place, run, upload, bad).status_code == 400
    (secret,) = place.events(place.other)
    forged = f"{secret.sha256}-{secret.size_bytes}-{'0' * 64}"
    assert finished(place, run, upload, [tags[0], forged]).status_code == 400
    other = begun(place, run, 2)
    assert finished(place, run, other, tags).status_code == 400
    assert place.names(run) == []
    assert finished(place, run, upload, tags).status_code == 200
    got = place.client.get(f"{PROXY}/artifacts/0/{run}/artifacts/deep/big.bin")
    assert got.content == b"1" * 10 + b"2" * 10


def test_killed_in_mid_upload(place: Place) -> None:
    """Nothing half is listed or left; parts that were sent count after the start."""
    run = place.new_run()
    upload = begun(place, run, 2)
    tags = [sent(upload["credentials"][0], b"a" * 1000).headers["etag"]]
    with socket.create_connection(("127.0.0.1", place.registry.port)) as half:
        half.sendall(
            f"PUT {PROXY}/artifacts/0/{run}/artifacts/half.bin HTTP/1.1\r\n"
            f"Host: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n"
            "Content-Length: 2500000\r\n\r\n".encode()
            + b"x" * 2_000_000
        )
        wait_until(lambda: _open_uploads(place) > 0, 120)
        place.registry.kill()
    place.registry.start()
    assert place.names(run) == []
    assert list((place.home / "uploads").iterdir()) == []
    assert place.events(run) == []
    port = upload["credentials"][1]  # the same port after a restart
    tags.append(sent(port, b"b" * 1000).headers["etag"])
    assert finished(place, run, upload, tags).status_code == 200
    assert place.names(run) == ["deep"]


def _open_uploads(place: Place) -> int:
    folder = Path(f"/proc/{place.registry.pid}/fd")
    names = [entry.readlink() for entry in folder.iterdir() if entry.is_symlink()]
    return sum("uploads" in str(name) for name in names)


def test_uploads_side_by_side(place: Place) -> None:
    """Each is one event, and each file is its own."""
    run = place.new_run()

    def upload(number: int) -> None:
        data = b"%d" % number * 100_000
        assert place.put(f"0/{run}/artifacts/{number}", data).status_code == 200

    threads = [threading.Thread(target=upload, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert place.names(run) == [str(n) for n in range(6)]
    assert len(place.events(run)) == 6


CLIENT_STORY = """
import os, sys, mlflow
from pathlib import Path
from mlflow import MlflowClient
home = Path(sys.argv[1])
big = home / "big.bin"
big.write_bytes(os.urandom(2_500_000))
with mlflow.start_run() as run:
    mlflow.log_artifact(str(big), "large")
back = Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id,
    artifact_path="large/big.bin", dst_path=str(home / "back")))
assert back.read_bytes() == big.read_bytes()
whole = Path(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/large"))
assert (whole / "big.bin").read_bytes() == big.read_bytes()
print(run.info.run_id)
"""


def test_the_client_sends_large_files_in_parts(place: Place, tmp_path: Path) -> None:
    """MLflow's own client, told that 1 MB is large; the log shows one event."""
    if not CLIENT.exists():
        pytest.skip("MLflow's client is not installed: make setup-mlflow")
    done = subprocess.run(
        [CLIENT, "-c", CLIENT_STORY, tmp_path],
        env={
            **QUIET,
            "MLFLOW_TRACKING_URI": place.registry.url,
            "MLFLOW_TRACKING_TOKEN": TOKEN,
            "MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE": "1000000",
            "MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE": "1000000",
            "HOME": str(tmp_path),
        },
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    run = done.stdout.split()[-1]
    (stored,) = place.events(run)
    assert (stored.path, stored.size_bytes) == ("large/big.bin", 2_500_000)
