"""A training elsewhere: what service and node say to each other, whoever is lost."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from driftloop.runtime.errors import Retry
from driftloop.runtime.places import FolderPlace, open_place
from driftloop.runtime.settings import Settings
from driftloop.trainer.child import ChildJob
from driftloop.trainer.remote import choice, link, node, ray_jobs, worker
from driftloop.trainer.remote.desk import Desk, End, Order, Report, new_try, open_desk
from driftloop.trainer.remote.kubernetes_jobs import (
    KubernetesJobs,
    TemplateError,
    job_of,
    read_template,
)
from driftloop.trainer.remote.launching import Launch, environment_of, launcher_of
from driftloop.trainer.remote.link import Link
from driftloop.trainer.remote.ray_jobs import RayJobs
from driftloop.trainer.remote.worker import RemoteWorker
from driftloop.trainer.settings import TrainerSettings
from driftloop.trainer.worker import Abandoned, Crashed, LimitReached, Worker
from pydantic import SecretStr

from tests.unit.support import wait_until

JOB = "0f9619ff-8b86-5d11-b42d-00cf4fc964ff"
LEASE_S = 0.6
TEMPLATE = Path(__file__).parents[3] / "infra/kubernetes/trainer-job.yaml"
HTTP = httpx.Client
Play = Callable[[Desk, str, Order], None]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "POLL_S", 0.01)
    monkeypatch.setattr(worker, "STATE_S", 0.0)
    monkeypatch.setattr(link, "TURN_S", 0.01)
    monkeypatch.setattr(link, "LEAVING_S", 100.0)


class FakeLauncher:
    """Plays a node in a thread; says how it ended as it is told."""

    def __init__(self, settings: TrainerSettings, play: Play | None = None) -> None:
        self.settings, self.play = settings, play
        self.launches: list[Launch] = []
        self.ended: list[str] = []
        self.says: str | None = None
        self.is_away = False

    def start(self, launch: Launch) -> None:
        self.launches.append(launch)
        if self.is_away:
            raise Retry("nobody answers")
        _, _, job_id, attempt, sha256 = launch.arguments
        desk = open_desk(self.settings, job_id)
        order = desk.order(attempt, sha256)
        if self.play is not None:
            arguments = (desk, attempt, order)
            threading.Thread(target=self.play, args=arguments, daemon=True).start()

    def problem(self, name: str) -> str | None:
        return self.says

    def end(self, name: str) -> None:
        self.ended.append(name)


class Side:
    """The service's side of a job, with a store in a folder."""

    def __init__(
        self, folder: Path, play: Play | None = None, lease_s: float = 20
    ) -> None:
        self.settings = TrainerSettings(home=folder, runs_on="ray", job_wait_minutes=1)
        self.launcher = FakeLauncher(self.settings, play)
        self.worker = RemoteWorker(self.launcher, self.settings, lease_s)
        self.desk = open_desk(self.settings, JOB)
        self.folder = folder / "trainer" / JOB
        self.folder.mkdir(parents=True, exist_ok=True)
        self.told: list[dict[str, Any]] = []

    def run(self, is_ours: Callable[[], bool] = lambda: True) -> Any:
        job = ChildJob(request="{}", folder=self.folder, cpu_limit_s=7)
        return self.worker.run(job, 60, is_ours, self.told.append)


def says(*reports: Report) -> Play:
    def play(desk: Desk, attempt: str, order: Order) -> None:
        for beat, report in enumerate(reports, 1):
            told = {"beat": beat, "progress_count": beat}
            desk.put_report(attempt, report.model_copy(update=told))
            time.sleep(0.05)

    return play


def trains(desk: Desk, attempt: str, order: Order) -> None:
    files = {"model.onnx": desk.put_file(attempt, b"a graph")}
    fields = {"manifest": {}, "files": ["model.onnx"], "tried": []}
    end = End(kind="trained", fields=fields, files=files)
    desk.put_report(attempt, Report(beat=9, cpu_seconds=3, end=end))


def test_package_and_progress_come_back(tmp_path: Path) -> None:
    """And what the node was asked is what the job says."""
    orders = []

    def play(desk: Desk, attempt: str, order: Order) -> None:
        orders.append(order)
        says(Report(beat=0, progress={"step": "fit", "done_ratio": 0.5}))(
            desk, attempt, order
        )
        trains(desk, attempt, order)

    side = Side(tmp_path, play)
    keys = side.settings.trusted_keys_folder
    keys.mkdir(parents=True)
    (keys / "a.pem").write_text("a public key")
    answer = side.run()
    assert answer.kind == "trained"
    assert (side.folder / "package/model.onnx").read_bytes() == b"a graph"
    assert side.worker.cpu_seconds == 3
    assert [x["step"] for x in side.told if "step" in x][:1] == ["waiting"]
    [order] = orders
    assert (order.cpu_limit_s, order.timeout_s, order.files) == (7, 60, {})
    assert order.trusted == ["a public key"]
    [launch] = side.launcher.launches
    assert side.launcher.ended == [launch.name]
    assert len(launch.name) <= 63
    side.worker.forget(side.folder)
    assert side.desk.tries() == []
    assert not side.folder.exists()


@pytest.mark.parametrize(
    ("end", "error"),
    [
        (End(kind="crashed", error="gone"), Crashed),
        (End(kind="limit", error="too long"), LimitReached),
        (End(kind="away", error="no table"), Retry),
    ],
)
def test_an_end_without_an_answer_is_the_error_that_a_child_gives(
    tmp_path: Path, end: End, error: type[Exception]
) -> None:
    side = Side(tmp_path, says(Report(beat=0, end=end)))
    with pytest.raises(error, match=end.error):
        side.run()


def test_a_refusal_is_an_answer(tmp_path: Path) -> None:
    end = End(kind="refused", fields={"error": "too few rows"})
    answer = Side(tmp_path, says(Report(beat=0, end=end))).run()
    assert (answer.kind, answer.fields) == ("refused", {"error": "too few rows"})


def test_a_silent_node_is_a_crash(tmp_path: Path) -> None:
    side = Side(tmp_path, says(Report(beat=0)), LEASE_S)
    with pytest.raises(Crashed, match="silent"):
        side.run()
    [launch] = side.launcher.launches
    assert side.launcher.ended == [launch.name]
    assert side.desk.lease(launch.arguments[3]) is None


def test_a_node_that_the_launcher_has_lost_is_a_crash(tmp_path: Path) -> None:
    side = Side(tmp_path)

    def play(desk: Desk, attempt: str, order: Order) -> None:
        desk.put_report(attempt, Report(beat=1))
        side.launcher.says = "its machine is off"

    side.launcher.play = play
    with pytest.raises(Crashed, match="its machine is off"):
        side.run()


def test_no_node_is_no_fault_of_the_job(tmp_path: Path) -> None:
    side = Side(tmp_path)
    side.launcher.says = "no image"
    with pytest.raises(Retry, match="no image"):
        side.run()
    side.launcher.says = None
    side.settings.job_wait_minutes = 0.001
    with pytest.raises(Retry, match="DRIFTLOOP_TRAINER_JOB_WAIT_MINUTES"):
        side.run()
    side.launcher.is_away = True
    with pytest.raises(Retry, match="nobody answers"):
        side.run()
    assert len(side.launcher.ended) >= 3  # it may have begun all the same


def test_a_job_that_is_no_longer_ours_is_ended(tmp_path: Path) -> None:
    side = Side(tmp_path, says(Report(beat=0)))
    with pytest.raises(Abandoned):
        side.run(lambda: not any("beat" in x for x in side.told) and not side.told[1:])
    [launch] = side.launcher.launches
    assert side.launcher.ended == [launch.name]


def test_the_next_try_goes_on_from_the_newest_files_that_are_whole(
    tmp_path: Path,
) -> None:
    """A try that left nothing is passed over; those before the used one go."""

    def saves(desk: Desk, attempt: str, order: Order) -> None:
        files = {"fit-mlp.checkpoint": desk.put_file(attempt, b"half")}
        desk.put_report(attempt, Report(beat=1, files=files))

    side = Side(tmp_path, saves)
    for play in (saves, saves, lambda *_: None, trains):
        side.launcher.play = play
        side.launcher.says = None if play is trains else "gone"
        with pytest.raises((Crashed, Retry)) if play is not trains else _nothing():
            side.run()
    names = [launch.arguments[3] for launch in side.launcher.launches]
    last = side.launcher.launches[-1]
    order = side.desk.order(names[-1], last.arguments[4])
    assert order.earlier == names[1]
    folder = tmp_path / "node"
    folder.mkdir()
    node.fetch(side.desk, order, folder)
    assert (folder / "fit-mlp.checkpoint").read_bytes() == b"half"
    assert side.desk.tries() == [names[1], names[-1]]
    assert f"training-{JOB}-{names[1]}" in side.launcher.ended


class _nothing:  # noqa: N801 - stands for pytest.raises
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def test_a_damaged_checkpoint_or_package_is_noticed(tmp_path: Path) -> None:
    side = Side(tmp_path)
    place = open_place(side.settings, f"trainings/{JOB}")
    digest = side.desk.put_file("0001-a", b"whole")
    place.put(f"0001-a/{digest}", b"damaged")
    order = Order(
        request="", cpu_limit_s=None, timeout_s=1, lease_s=1, earlier="0001-a",
        files={"x.checkpoint": digest},
    )  # fmt: skip
    node.fetch(side.desk, order, tmp_path)
    assert not (tmp_path / "x.checkpoint").exists()
    order.files = {"../x": digest}
    with pytest.raises(ValueError, match="no name of a checkpoint"):
        node.fetch(side.desk, order, tmp_path)
    fields = {"manifest": {}, "files": ["model.onnx"], "tried": []}
    lost = End(kind="trained", fields=fields, files={"model.onnx": "0" * 64})
    side.launcher.play = says(Report(beat=0, end=lost))
    with pytest.raises(Crashed, match=r"model.onnx is not whole"):
        side.run()


def test_an_order_of_another_digest_is_refused(tmp_path: Path) -> None:
    desk = Side(tmp_path).desk
    order = Order(request="", cpu_limit_s=None, timeout_s=1, lease_s=1)
    sha256 = desk.put_order("0001-a", order)
    assert desk.order("0001-a", sha256) == order
    desk.put_order("0001-a", order.model_copy(update={"request": "another"}))
    with pytest.raises(ValueError, match="another one"):
        desk.order("0001-a", sha256)


class NodeSide:
    """The node's side, with a lease that a test renews, and a clock that it moves.

    Attributes
    ----------
    now : what the clock of the link says, in seconds.
    looks : how often the link has looked at its lease.
    """

    def __init__(self, folder: Path, lease_s: float = LEASE_S) -> None:
        self.desk = Desk(FolderPlace(folder / "store"))
        self.folder = folder / "job"
        self.folder.mkdir()
        order = Order(request="", cpu_limit_s=None, timeout_s=1, lease_s=lease_s)
        self.desk.put_order("0001-a", order)
        self.desk.renew("0001-a", 0)
        self.now, self.looks = 0.0, 0
        self.link = Link(self.desk, "0001-a", self.folder, lease_s, lambda: self.now)
        look = self.desk.lease

        def counted(name: str) -> bytes | None:
            self.looks += 1
            return look(name)

        self.desk.lease = counted  # type: ignore[method-assign]

    def report(self) -> Report:
        found = self.desk.report("0001-a")
        return found or Report(beat=0)

    def wait(self, is_so: Callable[[], bool]) -> None:
        wait_until(is_so)

    def wait_for_turns(self, count: int = 2) -> None:
        """Return once the link has looked again, so often."""
        wanted = self.looks + count
        self.wait(lambda: self.looks >= wanted)


def test_a_node_says_what_changes_and_drops_what_is_replaced(tmp_path: Path) -> None:
    side = NodeSide(tmp_path, lease_s=30)
    path = side.folder / "fit-mlp.checkpoint"
    with side.link:
        path.write_bytes(b"first")
        (side.folder / "fit-mlp.checkpoint.draft").write_bytes(b"not yet")
        side.wait(lambda: path.name in side.report().files)
        first = side.report().files[path.name]
        side.link.progress({"step": "fit"})
        side.wait(lambda: side.report().progress == {"step": "fit"})
        path.write_bytes(b"second one")
        side.wait(lambda: side.report().files[path.name] != first)
        assert list(side.report().files) == [path.name]
        assert side.desk.file("0001-a", first) == b"first"  # of a report just read
        side.link._dropped[first] -= 31  # its own thread drops it, with the next report
        side.link.progress({"step": "evaluate"})
        side.wait(lambda: side.desk.file("0001-a", first) is None)
        path.unlink()
        side.wait(lambda: side.report().files == {})
        side.link.finish(End(kind="crashed", error="gone"), 2.0)
    assert side.report().end == End(kind="crashed", error="gone")
    assert side.report().cpu_seconds == 2.0


def test_a_lease_that_is_not_renewed_ends_the_node(tmp_path: Path) -> None:
    side = NodeSide(tmp_path, lease_s=3)
    with side.link:
        for count in range(1, 6):
            side.wait(lambda: side.link._lease is not None)
            side.now += 1.9  # of two seconds, after which a node ends
            assert side.link.is_ours()
            side.desk.renew("0001-a", count)
            wanted = str(count).encode()
            side.wait(lambda: side.link._lease == wanted)  # noqa: B023
        side.now += 1.9
        side.wait_for_turns()
        assert side.link.is_ours()
        side.now += 0.2
        assert not side.link.is_ours()
        side.wait_for_turns()
        assert not side.link.is_ours()
        with pytest.raises(Abandoned):
            side.link.finish(End(kind="refused"), 0)
    assert side.report().end is None


def test_a_withdrawn_lease_ends_the_node_at_once(tmp_path: Path) -> None:
    side = NodeSide(tmp_path, lease_s=3600)
    with side.link:
        side.wait(lambda: side.link._lease is not None)
        side.desk.withdraw("0001-a")
        side.wait(lambda: not side.link.is_ours())


class Late:
    """A store that a writer is slow to reach: its report waits until it is let go."""

    def __init__(self, side: NodeSide, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.released = threading.Event(), threading.Event()
        put = side.desk.put_report

        def slowly(name: str, report: Report) -> None:
            self.reached.set()
            assert self.released.wait(120)
            put(name, report)

        monkeypatch.setattr(side.desk, "put_report", slowly)


@pytest.mark.parametrize("is_leaving", [False, True])
def test_what_a_node_writes_after_its_room_was_removed_is_not_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_leaving: bool
) -> None:
    side = NodeSide(tmp_path, lease_s=3600)
    late = Late(side, monkeypatch)
    with side.link:
        side.link.progress({"step": "fit"})
        assert late.reached.wait(120)
        side.desk.remove()
        if not is_leaving:
            late.released.set()
            side.wait(lambda: not side.link.is_ours())
            side.wait(lambda: side.desk.tries() == [])
        late.released.set()
    assert not side.link._thread.is_alive()
    assert side.desk.tries() == []


def test_what_a_node_has_saved_stays_while_its_order_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease that is withdrawn is another try's beginning, which goes on from it."""
    side = NodeSide(tmp_path, lease_s=3600)
    late = Late(side, monkeypatch)
    (side.folder / "fit-mlp.checkpoint").write_bytes(b"half")
    with side.link:
        assert late.reached.wait(120)
        side.desk.withdraw("0001-a")
        side.desk.remove(kept="0001-a")
        late.released.set()
        side.wait(lambda: not side.link.is_ours())
    digest = side.report().files["fit-mlp.checkpoint"]
    assert side.desk.file("0001-a", digest) == b"half"


def test_a_node_whose_lease_is_withdrawn_writes_no_more(tmp_path: Path) -> None:
    side = NodeSide(tmp_path, lease_s=3600)
    with side.link:
        side.wait(lambda: side.link._lease is not None)
        side.desk.remove()
        side.wait(lambda: not side.link.is_ours())
        (side.folder / "fit-mlp.checkpoint").write_bytes(b"too late")
        side.link.progress({"step": "fit"})
        side.wait_for_turns()
        assert side.desk.tries() == []


def test_a_store_that_is_away_ends_the_node_with_its_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = NodeSide(tmp_path)

    def away(*_: object) -> bytes:
        raise Retry("away")

    with side.link:
        side.wait(lambda: side.link._lease is not None)
        monkeypatch.setattr(side.desk, "lease", away)
        assert side.link.is_ours()
        side.now += LEASE_S
        assert not side.link.is_ours()
        with pytest.raises(Abandoned):
            side.link.finish(End(kind="refused"), 0)


def test_tries_are_in_order_and_never_the_same() -> None:
    assert new_try([]) != new_try([])
    assert new_try(["0009-a", "0010-b"]).startswith("0011-")


def test_a_place_keeps_what_is_said_last(tmp_path: Path) -> None:
    place = FolderPlace(tmp_path / "place")
    assert place.get("a/b") is None
    assert place.names() == []
    place.put("a/b", b"1")
    place.put("a/b", b"2")
    place.put("a/c", b"3")
    assert (place.get("a/b"), place.names()) == (b"2", ["a/b", "a/c"])
    place.delete("a/b")
    place.delete("a/b")
    place.delete("a/c")
    assert place.names() == []
    assert not (tmp_path / "place" / "a").exists()
    for name in ("", "../a", "/a", "a//b", ".a", "a/.."):
        with pytest.raises(ValueError, match="no name"):
            place.put(name, b"")
    settings = Settings(artifacts_url=str(tmp_path / "file" / "below"))
    (tmp_path / "file").touch()
    with pytest.raises(Retry):
        open_place(settings, "room").put("a", b"")


def test_no_secret_is_sent(tmp_path: Path) -> None:
    """A node has the store's keys from its owner; the environment is for all to see."""
    settings = TrainerSettings(
        home=tmp_path, runs_on="ray", artifacts_url="s3://bucket/a",
        datasets_url="s3://bucket/d", s3_endpoint_url="http://store:7070",
        s3_access_key=SecretStr("hush-1"), s3_secret_key=SecretStr("hush-2"),
        api_token=SecretStr("hush-3"), ray_token=SecretStr("hush-4"),
        database_url=SecretStr("hush-5"), job_secrets_dir="/run/secrets", threads=3,
    )  # fmt: skip
    found = environment_of(settings)
    assert "hush" not in json.dumps(found)
    assert found["DRIFTLOOP_TRAINER_THREADS"] == "3"
    assert found["DRIFTLOOP_ARTIFACTS_URL"] == "s3://bucket/a"
    assert found["DRIFTLOOP_SECRETS_DIR"] == "/run/secrets"


def test_settings_choose_where(tmp_path: Path) -> None:
    here = TrainerSettings(home=tmp_path)
    assert isinstance(choice.open_worker(here), Worker)
    there = TrainerSettings(home=tmp_path, runs_on="ray", ray_address="http://head:1")
    assert isinstance(choice.open_worker(there), RemoteWorker)
    with pytest.raises(ValueError, match="DRIFTLOOP_TRAINER_RAY_ADDRESS"):
        launcher_of(TrainerSettings(home=tmp_path, runs_on="ray"))


def ray(
    answer: httpx.Response | Exception, monkeypatch: pytest.MonkeyPatch
) -> tuple[RayJobs, list[httpx.Request]]:
    asked = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def open_client(**fields: Any) -> httpx.Client:
        return HTTP(**fields, transport=httpx.MockTransport(handle))

    monkeypatch.setattr(ray_jobs.httpx, "Client", open_client)
    settings = TrainerSettings(
        ray_address="http://head:8265", ray_token=SecretStr("t"), job_gpus=0.5,
        ray_resources={"big": 1},
    )  # fmt: skip
    return RayJobs(settings), asked


LAUNCH = Launch("training-x-0001-a", ("-m", "m", "a b"), {"A": "1"}, 100)


def test_ray_gets_a_command_line_and_what_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs, asked = ray(httpx.Response(200, json={"status": "RUNNING"}), monkeypatch)
    jobs.start(LAUNCH)
    assert jobs.problem(LAUNCH.name) is None
    jobs.end(LAUNCH.name)
    sent = json.loads(asked[0].content)
    assert sent["entrypoint"] == "python -m m 'a b'"
    assert sent["runtime_env"] == {"env_vars": {"A": "1"}}
    assert sent["entrypoint_num_gpus"] == 0.5
    assert sent["entrypoint_resources"] == {"big": 1}
    assert asked[0].headers["authorization"] == "Bearer t"
    assert [x.url.path for x in asked[1:]] == [
        "/api/jobs/training-x-0001-a",
        "/api/jobs/training-x-0001-a/stop",
    ]


def test_what_ray_says_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = {"status": "FAILED", "message": "its node has died"}
    jobs, _ = ray(httpx.Response(200, json=failed), monkeypatch)
    assert jobs.problem("training-x") == "FAILED: its node has died"
    jobs, _ = ray(httpx.Response(404), monkeypatch)
    assert jobs.problem("training-x") == "Ray does not know it any more"
    jobs.end("training-x")
    with pytest.raises(Retry, match="DRIFTLOOP_TRAINER_RAY_ADDRESS"):
        jobs.start(LAUNCH)  # another server, not Ray's
    for answer in (
        httpx.Response(401), httpx.Response(200, text="<html>"),
        httpx.ConnectError("refused"),
    ):  # fmt: skip
        jobs, _ = ray(answer, monkeypatch)
        with pytest.raises(Retry):
            jobs.problem("training-x")


def template() -> dict[str, Any]:
    return read_template(TEMPLATE)


def cluster(tmp_path: Path, **changes: Any) -> TrainerSettings:
    account = tmp_path / "account"
    account.mkdir(exist_ok=True)
    (account / "token").write_text("t")
    (account / "namespace").write_text("there")
    fields: dict[str, Any] = {
        "runs_on": "kubernetes",
        "artifacts_url": "s3://bucket/a",
        "datasets_url": "s3://bucket/d",
        "kubernetes_account": account,
        "kubernetes_template": TEMPLATE,
    }
    return TrainerSettings(**{**fields, **changes})


def test_a_job_has_what_a_training_needs_whatever_the_template_says(
    tmp_path: Path,
) -> None:
    loose = template()
    loose["spec"] |= {"backoffLimit": 6}
    pod = loose["spec"]["template"]["spec"]
    pod |= {"restartPolicy": "OnFailure", "automountServiceAccountToken": True}
    settings = cluster(tmp_path, job_cpus=1.5, job_memory_gib=2, job_gpus=1)
    job = job_of(loose, LAUNCH, settings)
    assert job["metadata"]["name"] == LAUNCH.name
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["activeDeadlineSeconds"] == 100
    pod = job["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["automountServiceAccountToken"] is False
    [container] = pod["containers"]
    assert container["command"] + container["args"] == ["python", "-m", "m", "a b"]
    assert {"name": "A", "value": "1"} in container["env"]
    asked = {"cpu": "1500m", "memory": "2048Mi", "nvidia.com/gpu": "1"}
    assert container["resources"] == {"requests": asked, "limits": asked}
    assert loose["metadata"]["name"] == "set-by-the-trainer"  # not written to


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kubernetes_template": None}, "KUBERNETES_TEMPLATE"),
        ({"kubernetes_template": Path("nowhere.yaml")}, "cannot be read"),
        ({"artifacts_url": None}, "DRIFTLOOP_ARTIFACTS_URL"),
        ({"datasets_url": "/a/folder"}, "DRIFTLOOP_DATASETS_URL"),
        ({"kubernetes_account": Path("nowhere")}, "KUBERNETES_ACCOUNT"),
        ({"job_gpus": 0.5}, "DRIFTLOOP_TRAINER_JOB_GPUS"),
    ],
)
def test_wrong_settings_are_named(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    KubernetesJobs(cluster(tmp_path))
    with pytest.raises(ValueError, match=said):
        KubernetesJobs(cluster(tmp_path, **changes))


def test_a_template_is_one_job(tmp_path: Path) -> None:
    path = tmp_path / "template.yaml"
    for kind, count in (("Pod", 1), ("Job", 2)):
        changed = template()
        pod = changed["spec"]["template"]["spec"]
        changed["kind"], pod["containers"] = kind, pod["containers"] * count
        path.write_text(yaml.safe_dump(changed))
        with pytest.raises(TemplateError, match="no Job with one container"):
            read_template(path)
    path.write_text("a: [")
    with pytest.raises(TemplateError, match="cannot be read"):
        read_template(path)
