"""Trainings as Jobs: a server with the routes runs their pods as processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from deltalake import write_deltalake
from driftloop.contracts.events import DatasetRef, Span, TableRef, Trigger
from driftloop.models.signing import TrustedKeys
from driftloop.runtime.artifacts import open_store
from driftloop.runtime.datasets import storage_options
from driftloop.runtime.errors import Retry
from driftloop.runtime.places import open_place
from driftloop.trainer import child, core, training
from driftloop.trainer.child import ChildJob
from driftloop.trainer.remote.choice import open_worker
from driftloop.trainer.remote.desk import ORDER, ROOM, Order, open_desk
from driftloop.trainer.request import JobRequest
from driftloop.trainer.settings import TrainerSettings
from driftloop.trainer.worker import Abandoned, Crashed

from tests.component.kubernetes_api import KubernetesApi
from tests.component.trainer_process import WAIT_S, rows, spec_of
from tests.servers import S3Server
from tests.unit.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
TEMPLATE = Path(__file__).parents[2] / "infra/kubernetes/trainer-job.yaml"
COUNT = 1500
JOB = "0f9619ff-8b86-5d11-b42d-00cf4fc964ff"


@pytest.fixture(scope="module")
def api(
    s3: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KubernetesApi]:
    keys = {
        "driftloop_s3_access_key": s3.access_key,
        "driftloop_s3_secret_key": s3.secret_key,
    }
    server = KubernetesApi(tmp_path_factory.mktemp("kubernetes"), keys).start()
    try:
        yield server
    finally:
        server.stop()


class Side:
    """The trainer's side of one job, with its table on S3."""

    def __init__(self, home: Path, s3: S3Server, api: KubernetesApi) -> None:
        shared = s3.new_bucket().model_dump(
            include={
                "artifacts_url", "datasets_url", "s3_endpoint_url", "s3_access_key",
                "s3_secret_key",
            }
        )  # fmt: skip
        self.settings = TrainerSettings(
            home=home, runs_on="kubernetes", kubernetes_url=api.url, lease_seconds=9,
            kubernetes_account=api.account, kubernetes_template=TEMPLATE, **shared,
        )  # fmt: skip
        self.worker = open_worker(self.settings)
        self.folder = home / "trainer" / JOB
        self.folder.mkdir(parents=True)
        self.told: list[dict[str, Any]] = []
        self.request = self._request().model_dump_json()

    def _request(self) -> JobRequest:
        spec = spec_of("pods", "gradient_boosting, adaptive_forest, linear")
        table = rows(COUNT)
        uri = f"{self.settings.datasets_url}/pods/observations"
        write_deltalake(uri, table, storage_options=storage_options(self.settings))
        times = table["event_time"].to_pylist()
        labelled = Span(start=times[0], end=times[-1])
        train_span, holdout_span = core.plan(labelled, spec.train)
        return JobRequest(
            job_id=JOB,
            trigger=Trigger(event_id="e", event_type="t", reason="first_model"),
            spec=spec,
            dataset=DatasetRef(observations=TableRef(uri=uri, version=0)),
            train_span=train_span,
            holdout_span=holdout_span,
        )

    def run(self, is_ours: Any = lambda: True) -> Any:
        job = ChildJob(request=self.request, folder=self.folder)
        return self.worker.run(job, 300, is_ours, self.told.append)

    def saved(self) -> dict[str, str]:
        """Return the files that the newest try has put into the store."""
        desk = open_desk(self.settings, JOB)
        reports = [desk.report(name) for name in desk.tries()[-1:]]
        return reports[0].files if reports and reports[0] else {}

    def began_with(self) -> dict[str, str]:
        """Return the files that the newest try went on from."""
        place = open_place(self.settings, f"{ROOM}/{JOB}")
        [*_, newest] = [name for name in place.names() if name.endswith(f"/{ORDER}")]
        return Order.model_validate_json(place.get(newest) or b"").files

    def made_here(self, folder: Path) -> dict[str, bytes]:
        """Return the package's files when the same is trained in this process."""
        folder.mkdir()
        using = training.Environment(
            open_store(self.settings), TrustedKeys([]), storage_options(self.settings),
            1, folder,
        )  # fmt: skip
        job = ChildJob(request=self.request, folder=folder)
        said = child.answer(job, using, lambda *_: None)
        return {x: (folder / "package" / x).read_bytes() for x in said["files"]}


def test_a_pod_that_is_killed_is_followed_by_one_that_goes_on(
    tmp_path: Path, s3: S3Server, api: KubernetesApi
) -> None:
    """With what the first had fitted, to the same bytes as here; the store is empty."""
    side = Side(tmp_path / "home", s3, api)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(side.run)
        wait_until(
            lambda: first.done() or any("boosting" in x for x in side.saved()), WAIT_S
        )
        assert not first.done(), (first.exception(), api.said())
        [pod] = api.pods.values()
        os.killpg(pod.process.pid, signal.SIGKILL)
        with pytest.raises(Crashed, match="OOMKilled"):
            first.result(WAIT_S)
    assert api.pods == {}
    saved = side.saved()
    answer = side.run()
    assert answer.kind == "trained", api.said()
    assert "try0-gradient_boosting.onnx" in saved
    assert side.began_with() == saved
    found = {x.name: x.read_bytes() for x in (side.folder / "package").iterdir()}
    assert found == side.made_here(tmp_path / "here")
    assert side.worker.cpu_seconds > 0
    side.worker.forget(side.folder)
    assert open_desk(side.settings, JOB).tries() == []
    assert api.problems == []
    assert api.pods == {}


def test_a_job_that_is_given_up_leaves_no_pod(
    tmp_path: Path, s3: S3Server, api: KubernetesApi
) -> None:
    side = Side(tmp_path / "home", s3, api)
    seen = []

    def is_ours() -> bool:
        seen.extend(pod.process for pod in api.pods.values() if not seen)
        return not any(x["step"] != "waiting" for x in side.told)

    with pytest.raises(Abandoned):
        side.run(is_ours)
    assert api.pods == {}
    assert seen[0].poll() is not None


def test_what_the_api_server_refuses_is_said(
    tmp_path: Path, s3: S3Server, api: KubernetesApi
) -> None:
    """Negative controls of the server: a wrong Job, a wrong token."""
    side = Side(tmp_path / "home", s3, api)
    text = TEMPLATE.read_text().replace("readOnlyRootFilesystem: true", "readOnly: 1")
    template = tmp_path / "wrong.yaml"
    template.write_text(text)
    settings = side.settings.model_copy(update={"kubernetes_template": template})
    side.worker = open_worker(settings)
    with pytest.raises(Retry, match=r"refuses \(422\)"):
        side.run()
    assert api.problems.pop()
    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text("another")
    (account / "namespace").write_text("driftloop")
    settings = side.settings.model_copy(update={"kubernetes_account": account})
    side.worker = open_worker(settings)
    with pytest.raises(Retry, match=r"refuses \(401\)"):
        side.run()
