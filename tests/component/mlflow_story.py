"""What a user of MLflow does, told by the official client: one answer a step.

Run by the Python of an environment with ``mlflow`` (``make setup-mlflow``), not by
pytest's: ``python mlflow_story.py FILE [SECTION ...]`` with ``MLFLOW_TRACKING_URI``
set. Writes each step's answer to FILE, names and times of the server's making
replaced, so that two servers' answers can be compared field by field.
"""

from __future__ import annotations

import json
import math
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelInput,
    LoggedModelOutput,
    Metric,
    Param,
    RunTag,
    ViewType,
)
from mlflow.entities.logged_model_status import LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow_registered import model_searches, model_versions, registered_models
from mlflow_searches import (
    EXPERIMENT_SEARCHES,
    LOGGED_MODEL_ORDERS,
    LOGGED_MODEL_SEARCHES,
    RUN_SEARCHES,
)
from requests import HTTPError

Story = Callable[["Teller"], None]
FIRST_TIME_MS = 1_600_000_000_000
"""Larger numbers are times that a server or the client read from its clock."""
MAX_TOLD = 1000
MINTED = re.compile(r"\b(m-)?[0-9a-f]{32}\b")
LOCATION = re.compile(r"^(mlflow-artifacts:/*|file:/+|/).*?(?=/?(\d+|models)(/|$))")


class Teller:
    """Takes the steps down."""

    def __init__(self) -> None:
        self.client = MlflowClient()
        self.steps: dict[str, Any] = {}
        self._names: dict[str, str] = {}

    def tell(self, step: str, what: Callable[[], Any]) -> Any:
        """Do one step; return its answer, None when it was refused."""
        answer, told = None, None
        try:
            answer = what()
            told = self._plain(answer)
        except MlflowException as error:
            told = {"refused": error.error_code}
        except HTTPError as error:  # of files, whose errors the client does not read
            told = {"refused": error.response.status_code}
        assert step not in self.steps, step
        self.steps[step] = told
        return answer

    def _plain(self, value: Any) -> Any:  # noqa: PLR0911 - a kind a line
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return "<time>" if value > FIRST_TIME_MS else value
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if isinstance(value, str):
            is_long = len(value) > MAX_TOLD
            return f"<{len(value)} characters>" if is_long else self._text(value)
        if isinstance(value, dict):
            return {k: self._plain(v) for k, v in sorted(value.items())}
        if isinstance(value, list | tuple):
            return [self._plain(v) for v in value]
        if hasattr(value, "__iter__"):  # an entity
            return {k: self._plain(v) for k, v in sorted(dict(value).items())}
        if hasattr(value, "to_dictionary"):
            return self._plain(value.to_dictionary())
        return self._text(str(value))

    def _text(self, text: str) -> str:
        if text.isdigit() and int(text) > FIRST_TIME_MS:
            return "<time>"

        def named(match: re.Match[str]) -> str:
            kind = "model" if match[1] else "run"
            return self._names.setdefault(match[0], f"<{kind} {len(self._names) + 1}>")

        return MINTED.sub(named, LOCATION.sub("<root>", text))


def experiments(teller: Teller) -> None:
    """Made, found, named anew, tagged, deleted, restored."""
    client, tell = teller.client, teller.tell
    tell("default experiment", lambda: client.get_experiment("0"))
    one = tell("create", lambda: client.create_experiment("one", tags={"team": "a"}))
    tell("create again", lambda: client.create_experiment("one"))
    tell("create without a name", lambda: client.create_experiment(""))
    tell("create, long name", lambda: client.create_experiment("n" * 501))
    tell("get", lambda: client.get_experiment(one))
    tell("get by name", lambda: client.get_experiment_by_name("one"))
    tell("get unknown", lambda: client.get_experiment("12345"))
    tell("get no number", lambda: client.get_experiment("abc"))
    tell("get by unknown name", lambda: client.get_experiment_by_name("nobody"))
    tell("tag", lambda: client.set_experiment_tag(one, "stage", "draft"))
    tell("tag anew", lambda: client.set_experiment_tag(one, "stage", "final"))
    tell("tag, bad name", lambda: client.set_experiment_tag(one, "a#b", "x"))
    tell("tag, long", lambda: client.set_experiment_tag(one, "long", "x" * 20_001))
    tell("untag", lambda: client.delete_experiment_tag(one, "team"))
    tell("untag again", lambda: client.delete_experiment_tag(one, "team"))
    tell("rename", lambda: client.rename_experiment(one, "uno"))
    tell("renamed", lambda: client.get_experiment(one))
    run = client.create_run(one)
    tell("delete", lambda: client.delete_experiment(one))
    tell("deleted", lambda: client.get_experiment(one))
    tell("delete again", lambda: client.delete_experiment(one))
    tell("its run", lambda: client.get_run(run.info.run_id).info.lifecycle_stage)
    tell("run in deleted", lambda: client.create_run(one))
    tell("rename deleted", lambda: client.rename_experiment(one, "x"))
    tell("tag deleted", lambda: client.set_experiment_tag(one, "a", "b"))
    tell("create deleted's name", lambda: client.create_experiment("uno"))
    tell("restore", lambda: client.restore_experiment(one))
    tell("restore again", lambda: client.restore_experiment(one))
    tell(
        "its run restored", lambda: client.get_run(run.info.run_id).info.lifecycle_stage
    )
    for name in ("two", "Three", "four_4"):
        client.create_experiment(name, tags={"kind": name[:2], "all": "yes"})
    for number, (text, order) in enumerate(EXPERIMENT_SEARCHES):
        tell(
            f"search {number}: {text} by {order}",
            lambda text=text, order=order: [
                e.name
                for e in client.search_experiments(filter_string=text, order_by=order)
            ],
        )
    page = client.search_experiments(max_results=2, order_by=["name"])
    tell("page", lambda: ([e.name for e in page], bool(page.token)))
    tell(
        "next page",
        lambda: [
            e.name
            for e in client.search_experiments(
                max_results=2, order_by=["name"], page_token=page.token
            )
        ],
    )
    tell("bad page", lambda: client.search_experiments(page_token="nonsense"))
    tell("page of none", lambda: client.search_experiments(max_results=0))
    client.delete_experiment(one)
    for view in (ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY, ViewType.ALL):
        tell(
            f"view {view}",
            lambda view=view: sorted(e.name for e in client.search_experiments(view)),
        )


def runs(teller: Teller) -> None:
    """Made, changed, logged to, deleted, restored."""
    client, tell = teller.client, teller.tell
    one = client.create_experiment("runs")
    run = tell(
        "create",
        lambda: client.create_run(one, 1000, {"a": "b", "mlflow.user": "ann"}, "r1"),
    )
    name = run.info.run_id
    tell("create, no experiment", lambda: client.create_run("4711"))
    tell(
        "create, two names",
        lambda: client.create_run(one, 1, {"mlflow.runName": "x"}, "y"),
    )
    tell("get unknown", lambda: client.get_run("0" * 32))
    tell("param", lambda: client.log_param(name, "depth", 3))
    tell("param again", lambda: client.log_param(name, "depth", 3))
    tell("param changed", lambda: client.log_param(name, "depth", 4))
    tell("param, bad name", lambda: client.log_param(name, "a/../b", 4))
    tell("param, long", lambda: client.log_param(name, "long", "x" * 6001))
    tell("param, empty", lambda: client.log_param(name, "empty", ""))
    tell("metric", lambda: client.log_metric(name, "loss", 0.5, 10, 1))
    tell("metric again", lambda: client.log_metric(name, "loss", 0.5, 10, 1))
    tell("metric, later", lambda: client.log_metric(name, "loss", 0.25, 20, 2))
    tell("metric, earlier step", lambda: client.log_metric(name, "loss", 9.0, 30, 0))
    tell("metric, nan", lambda: client.log_metric(name, "nan", float("nan"), 1, 1))
    tell("metric, whole", lambda: client.log_metric(name, "whole", 7, 1, -3))
    tell("metric, bad name", lambda: client.log_metric(name, "../x", 1.0, 1, 1))
    tell("metric, before time", lambda: client.log_metric(name, "loss", 1.0, -1, 1))
    tell("history", lambda: client.get_metric_history(name, "loss"))
    tell("history of none", lambda: client.get_metric_history(name, "nothing"))
    tell("history of nan", lambda: client.get_metric_history(name, "nan"))
    tell("tag", lambda: client.set_tag(name, "a", "c"))
    tell("tag, name", lambda: client.set_tag(name, "mlflow.runName", "renamed"))
    tell("untag", lambda: client.delete_tag(name, "a"))
    tell("untag again", lambda: client.delete_tag(name, "a"))
    tell("logged", lambda: client.get_run(name))
    tell(
        "batch",
        lambda: client.log_batch(
            name,
            [Metric("loss", 0.1 * n, 100 + n, 10 + n) for n in range(5)]
            + [Metric("acc", 0.5, 1, 1), Metric("acc", 0.5, 1, 1)],
            [Param("p1", "1"), Param("p2", "2")],
            [RunTag("t1", "1"), RunTag("t2", "2")],
        ),
    )
    tell(
        "batch, param changed",
        lambda: client.log_batch(name, params=[Param("p1", "9")]),
    )
    tell(
        "batch, param twice",
        lambda: client.log_batch(name, params=[Param("q", "1"), Param("q", "2")]),
    )
    tell("batched", lambda: client.get_run(name).data)
    tell("update", lambda: client.update_run(name, "FINISHED", "third"))
    tell("updated", lambda: client.get_run(name).info)
    tell("terminate", lambda: client.set_terminated(name, "KILLED", 5000))
    tell("terminated", lambda: client.get_run(name).info)
    tell("delete", lambda: client.delete_run(name))
    tell("deleted", lambda: client.get_run(name).info)
    tell("log to deleted", lambda: client.log_metric(name, "loss", 1.0, 1, 1))
    tell("tag deleted", lambda: client.set_tag(name, "x", "y"))
    tell("restore", lambda: client.restore_run(name))
    tell("restored", lambda: client.get_run(name).info)
    tell("delete unknown", lambda: client.delete_run("0" * 32))
    _inputs(teller, one, name)


def _inputs(teller: Teller, one: str, name: str) -> None:
    client, tell = teller.client, teller.tell
    data = Dataset("d", "digest", "local", '{"uri": "x"}', '{"s": 1}', '{"n": 2}')
    context = [InputTag("mlflow.data.context", "train")]
    tell("inputs", lambda: client.log_inputs(name, [DatasetInput(data, context)]))
    tell("inputs again", lambda: client.log_inputs(name, [DatasetInput(data, [])]))
    other = client.create_run(one, run_name="other").info.run_id
    tell("same data", lambda: client.log_inputs(other, [DatasetInput(data, [])]))
    tell("models in", lambda: client.log_inputs(name, models=[LoggedModelInput("m-1")]))
    tell("models out", lambda: client.log_outputs(name, [LoggedModelOutput("m-2", 3)]))
    tell("with inputs", lambda: client.get_run(name))
    tell("other's inputs", lambda: client.get_run(other).inputs)


def searches(teller: Teller) -> None:
    """Runs found by what was logged, in every order."""
    client, tell = teller.client, teller.tell
    one = client.create_experiment("searches")
    for number in range(6):
        run = client.create_run(
            one, 1000 + number, run_name=f"run-{number}"
        ).info.run_id
        loss = float("nan") if number == 5 else number / 10
        client.log_batch(
            run,
            [Metric("loss", loss, 1, 1)] + [Metric("f 1", 1.0, 1, 1)] * (number % 2),
            [Param("depth", str(number)), Param("kind", "AbC" if number else "abc")],
            [RunTag("odd", str(number % 2)), RunTag("user.name", "Ann")],
        )
        if number < 3:
            client.set_terminated(
                run, "FINISHED" if number else "FAILED", 2000 + number
            )
        if number == 1:
            data = Dataset("d1", "dig", "local", "{}")
            context = [InputTag("mlflow.data.context", "train")]
            client.log_inputs(run, [DatasetInput(data, context)])
        if number == 4:
            client.delete_run(run)

    def found(text: str, order: list[str] | None, view: int = 1) -> list[str]:
        hits = client.search_runs([one], text, view, order_by=order)
        return [run.info.run_name for run in hits]

    for number, (text, order) in enumerate(RUN_SEARCHES):
        tell(
            f"{number}: {text} by {order}",
            lambda text=text, order=order: found(text, order),
        )
    for view in (ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY, ViewType.ALL):
        tell(f"view {view}", lambda view=view: found("", None, view))
    tell("pages", lambda: list(_pages(client, one)))
    tell("no experiment", lambda: client.search_runs([], ""))
    tell("unknown experiment", lambda: client.search_runs(["4711"], ""))
    tell("too many", lambda: client.search_runs([one], "", max_results=50_001))
    tell("whole", lambda: client.search_runs([one], "params.depth = '1'")[0])


def _pages(client: MlflowClient, one: str) -> Iterator[list[str]]:
    token = None
    while True:
        page = client.search_runs([one], "", max_results=2, page_token=token)
        yield [run.info.run_name for run in page]
        token = page.token
        if not token:
            return


def files(teller: Teller) -> None:
    """Logged to a run in every way, listed, loaded, replaced, deleted."""
    client, tell = teller.client, teller.tell
    one = client.create_experiment("files")
    run = client.create_run(one, run_name="r").info
    name = run.run_id
    here = Path(tempfile.mkdtemp())
    (here / "deep/er").mkdir(parents=True)
    for number, path in enumerate(("a.txt", "deep/b.json", "deep/er/c d.bin")):
        (here / path).write_bytes(b"x" * (number + 1))
    tell("artifact_uri", lambda: run.artifact_uri)
    tell("list before", lambda: client.list_artifacts(name))
    tell("log_artifact", lambda: client.log_artifact(name, str(here / "a.txt")))
    tell("into", lambda: client.log_artifact(name, str(here / "a.txt"), "in/to"))
    tell("log_artifacts", lambda: client.log_artifacts(name, str(here), "whole"))
    tell("log_dict", lambda: client.log_dict(name, {"a": [1, 2]}, "dicts/d.json"))
    tell("log_dict, yaml", lambda: client.log_dict(name, {"a": [1, 2]}, "dicts/d.yaml"))
    tell("log_text", lambda: client.log_text(name, "ein Täxt", "texts/t.txt"))
    tell("log_text, html", lambda: client.log_text(name, "<b>", "texts/t.html"))
    tell("log_text, above", lambda: client.log_text(name, "x", "../up.txt"))
    tell("log_text, absolute", lambda: client.log_text(name, "x", "/up.txt"))
    tell("unknown run", lambda: client.log_text("0" * 32, "x", "t.txt"))
    for folder in (None, "whole", "whole/deep", "dicts", "nothing", "whole/a.txt"):
        tell(
            f"list {folder}", lambda folder=folder: client.list_artifacts(name, folder)
        )
    tell("list above", lambda: client.list_artifacts(name, "../"))

    def text_of(path: str) -> str:
        return mlflow.artifacts.load_text(f"{run.artifact_uri}/{path}")

    tell("load_text", lambda: text_of("texts/t.txt"))
    tell("load_dict", lambda: mlflow.artifacts.load_dict(f"runs:/{name}/dicts/d.json"))
    tell("load nothing", lambda: text_of("texts/nothing.txt"))

    def downloaded(**what: str) -> list[str]:
        root = Path(
            mlflow.artifacts.download_artifacts(**what, dst_path=tempfile.mkdtemp())
        )
        found = sorted(root.rglob("*")) if root.is_dir() else [root]
        size = {
            str(f.relative_to(root)): f.stat().st_size for f in found if f.is_file()
        }
        return [f"{path} {size[path]}" for path in size]

    tell("download all", lambda: downloaded(run_id=name))
    tell(
        "download a folder", lambda: downloaded(run_id=name, artifact_path="whole/deep")
    )
    tell("download a file", lambda: downloaded(artifact_uri=f"runs:/{name}/a.txt"))
    tell("download nothing", lambda: downloaded(run_id=name, artifact_path="nothing"))
    tell("replace", lambda: client.log_text(name, "another", "texts/t.txt"))
    tell("replaced", lambda: text_of("texts/t.txt"))
    place = get_artifact_repository(run.artifact_uri)
    tell("delete a file", lambda: place.delete_artifacts("texts/t.html"))
    tell("delete a folder", lambda: place.delete_artifacts("whole/deep"))
    tell("what is left", lambda: downloaded(run_id=name))
    tell("delete all", place.delete_artifacts)
    tell("nothing is left", lambda: client.list_artifacts(name))


CODE = """
import mlflow
from mlflow.pyfunc import PythonModel


class Twice(PythonModel):
    def predict(self, context, model_input, params=None):
        return [2 * x for x in model_input]


mlflow.models.set_model(Twice())
"""


def logged_models(teller: Teller) -> None:
    """Made, described, measured, searched, with files; logged and loaded whole."""
    client, tell = teller.client, teller.tell
    one = client.create_experiment("models")
    run = client.create_run(one, run_name="r").info.run_id
    model = tell(
        "create",
        lambda: client.create_logged_model(
            one, "first", run, {"a": "b"}, {"depth": "3"}, "classifier"
        ),
    )
    name = model.model_id
    tell("create, no experiment", lambda: client.create_logged_model("4711", "x"))
    tell("create, bad name", lambda: client.create_logged_model(one, "a/b"))
    tell("get", lambda: client.get_logged_model(name))
    tell("get unknown", lambda: client.get_logged_model("m-" + "0" * 32))
    tell("tag", lambda: client.set_logged_model_tags(name, {"a": "c", "d": "e"}))
    tell("untag", lambda: client.delete_logged_model_tag(name, "d"))
    tell("untag again", lambda: client.delete_logged_model_tag(name, "d"))
    tell("params", lambda: client.log_model_params(name, {"lr": "0.1"}))
    tell("finalize", lambda: client.finalize_logged_model(name, "READY"))
    failed = client.create_logged_model(one, "second", model_type="other").model_id
    tell(
        "finalize, failed",
        lambda: client.finalize_logged_model(failed, LoggedModelStatus.FAILED),
    )
    for number, model_id in enumerate((name, failed)):
        client.log_metric(run, "loss", 0.5 - number / 10, 10, 1, model_id=model_id)
    client.log_metric(
        run, "acc", 0.9, 10, 1, dataset_name="d", dataset_digest="x", model_id=name
    )
    measured = client.get_logged_model(name)
    tell("measured", lambda: sorted(measured.metrics, key=lambda m: m.key))
    tell("measured at", lambda: measured.last_updated_timestamp)
    tell("the run's metrics", lambda: client.get_run(run).data.metrics)

    def found(**what: Any) -> list[str]:
        return [m.name for m in client.search_logged_models([one], **what)]

    for text in LOGGED_MODEL_SEARCHES:
        tell(f"search {text}", lambda text=text: found(filter_string=text))
    for order in LOGGED_MODEL_ORDERS:
        tell(f"order {order}", lambda order=order: found(order_by=[order]))
    for digest in ("x", "y"):
        data = {"dataset_name": "d", "dataset_digest": digest}
        tell(f"on dataset {digest}", lambda data=data: found(datasets=[data]))
    page = client.search_logged_models([one], max_results=1)
    tell("page", lambda: ([m.name for m in page], bool(page.token)))
    tell("next page", lambda: found(max_results=1, page_token=page.token))
    tell("delete", lambda: client.delete_logged_model(failed))
    tell("deleted", lambda: client.get_logged_model(failed))
    tell("search deleted", found)
    _whole_model(teller, one)


def _whole_model(teller: Teller, one: str) -> None:
    """``log_model`` and ``load_model`` of a model that is code, not a pickle."""
    tell = teller.tell
    code = Path(tempfile.mkdtemp()) / "twice.py"
    code.write_text(CODE, "utf-8")
    mlflow.set_experiment(experiment_id=one)
    with mlflow.start_run() as run:
        info = mlflow.pyfunc.log_model(
            name="twice", python_model=str(code), pip_requirements=["mlflow"]
        )
    tell("log_model", lambda: teller.client.get_logged_model(info.model_id).status)
    tell("outputs", lambda: teller.client.get_run(run.info.run_id).outputs)
    files = mlflow.artifacts.list_artifacts(artifact_uri=info.model_uri)
    tell("its files", lambda: [file.path for file in files])
    for uri in (info.model_uri, f"runs:/{run.info.run_id}/twice"):
        kind = uri.partition(":")[0]
        tell(
            f"load {kind}",
            lambda uri=uri: mlflow.pyfunc.load_model(uri).predict([1, 2]),
        )


STORY: dict[str, Story] = {
    "experiments": experiments,
    "runs": runs,
    "searches": searches,
    "registered models": registered_models,
    "model versions": model_versions,
    "model searches": model_searches,
    "files": files,
    "logged models": logged_models,
}


def main(file: str, *sections: str) -> None:
    """Tell the story; write it down."""
    told = {}
    for section in sections or STORY:
        teller = Teller()
        STORY[section](teller)
        told[section] = teller.steps
    content = {"mlflow": mlflow.__version__, "sections": told}
    Path(file).write_text(json.dumps(content, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
