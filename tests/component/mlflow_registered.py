"""The story's part about registered models, versions, aliases, stages and prompts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from mlflow import MlflowClient
from mlflow_searches import MODEL_SEARCHES, VERSION_SEARCHES


class Telling(Protocol):
    """Who takes the steps down."""

    client: MlflowClient

    def tell(self, step: str, what: Callable[[], Any]) -> Any:
        """Do one step."""
        ...


def registered_models(teller: Telling) -> None:
    """Made, described, tagged, renamed, deleted, made again."""
    client, tell = teller.client, teller.tell
    tell("create", lambda: client.create_registered_model("ore", {"team": "a"}, "rock"))
    tell("create again", lambda: client.create_registered_model("ore"))
    tell("create without a name", lambda: client.create_registered_model(" "))
    tell("create, bad name", lambda: client.create_registered_model("a/b"))
    tell("create, colon", lambda: client.create_registered_model("a:b"))
    tell("create, a path", lambda: client.create_registered_model(".."))
    tell("create, bad tag", lambda: client.create_registered_model("x", {"a#b": "c"}))
    tell("create, long tag", lambda: client.create_registered_model("x", {"a": LONG}))
    tell("create, signs", lambda: client.create_registered_model("Größe, 1 % (x)"))
    tell("get", lambda: client.get_registered_model("ore"))
    tell("get unknown", lambda: client.get_registered_model("nobody"))
    tell("get, bad name", lambda: client.get_registered_model("a/b"))
    tell("describe", lambda: client.update_registered_model("ore", "metal"))
    tell("describe unknown", lambda: client.update_registered_model("nobody", "x"))
    tell("describe, empty", lambda: client.update_registered_model("ore", ""))
    tell("tag", lambda: client.set_registered_model_tag("ore", "stage", "draft"))
    tell("tag anew", lambda: client.set_registered_model_tag("ore", "stage", "final"))
    tell("tag, number", lambda: client.set_registered_model_tag("ore", "n", 1))
    tell("tag, bad key", lambda: client.set_registered_model_tag("ore", "a#b", "x"))
    tell("tag, long key", lambda: client.set_registered_model_tag("ore", "k" * 251, ""))
    tell("tag, long", lambda: client.set_registered_model_tag("ore", "long", LONG))
    tell("tag unknown", lambda: client.set_registered_model_tag("nobody", "a", "b"))
    tell("untag", lambda: client.delete_registered_model_tag("ore", "team"))
    tell("untag again", lambda: client.delete_registered_model_tag("ore", "team"))
    tell("untag unknown", lambda: client.delete_registered_model_tag("nobody", "a"))
    tell("tagged", lambda: client.get_registered_model("ore"))
    run = client.create_run("0").info.run_id
    client.create_model_version("ore", f"runs:/{run}/model", run)
    tell("rename", lambda: client.rename_registered_model("ore", "gold"))
    tell("renamed", lambda: client.get_registered_model("gold"))
    tell("its version", lambda: client.get_model_version("gold", "1"))
    tell("old name", lambda: client.get_registered_model("ore"))
    tell("rename unknown", lambda: client.rename_registered_model("ore", "x"))
    tell("rename, bad name", lambda: client.rename_registered_model("gold", "a/b"))
    tell("rename, no name", lambda: client.rename_registered_model("gold", " "))
    client.create_registered_model("tin")
    tell("rename, taken", lambda: client.rename_registered_model("gold", "tin"))
    tell("delete", lambda: client.delete_registered_model("gold"))
    tell("delete again", lambda: client.delete_registered_model("gold"))
    tell("deleted", lambda: client.get_registered_model("gold"))
    tell("version of deleted", lambda: client.get_model_version("gold", "1"))
    tell("made again", lambda: client.create_registered_model("gold"))
    for name in ("tin", "gold", "Größe, 1 % (x)"):
        client.delete_registered_model(name)


LONG = "x" * 100_001


def model_versions(teller: Telling) -> None:
    """Registered, described, tagged, copied, deleted; aliases and stages of them."""
    client, tell = teller.client, teller.tell
    client.create_registered_model("iron")
    run = client.create_run("0", run_name="smelt").info.run_id
    other = client.create_run("0").info.run_id
    source = f"runs:/{run}/model"
    tell(
        "create",
        lambda: client.create_model_version(
            "iron", source, run, {"a": "b"}, "http://x/y", "first"
        ),
    )
    tell("second", lambda: client.create_model_version("iron", source, run))
    place = client.get_run(run).info.artifact_uri
    tell(
        "from its place",
        lambda: client.create_model_version("iron", f"{place}/model", run),
    )
    for step, bad, named in _bad_sources(run, other, place):
        tell(
            f"create, {step}",
            lambda bad=bad, named=named: client.create_model_version(
                "iron", bad, named
            ),
        )
    tell("create unknown", lambda: client.create_model_version("nobody", source, run))
    tell(
        "create, bad tag",
        lambda: client.create_model_version("iron", source, run, {"a#b": "c"}),
    )
    tell("get", lambda: client.get_model_version("iron", "1"))
    tell("get by number", lambda: client.get_model_version("iron", 2))
    tell("get unknown", lambda: client.get_model_version("iron", "99"))
    tell("get no number", lambda: client.get_model_version("iron", "abc"))
    tell("get of unknown", lambda: client.get_model_version("nobody", "1"))
    tell("uri", lambda: client.get_model_version_download_uri("iron", "1"))
    tell("uri unknown", lambda: client.get_model_version_download_uri("iron", "99"))
    tell("describe", lambda: client.update_model_version("iron", "1", "harder"))
    tell("describe, empty", lambda: client.update_model_version("iron", "2", ""))
    tell("describe unknown", lambda: client.update_model_version("iron", "99", "x"))
    tell("tag", lambda: client.set_model_version_tag("iron", "1", "stage", "draft"))
    tell("tag anew", lambda: client.set_model_version_tag("iron", "1", "stage", "done"))
    tell("tag, bad", lambda: client.set_model_version_tag("iron", "1", "a#b", "x"))
    tell("tag, long", lambda: client.set_model_version_tag("iron", "1", "long", LONG))
    tell("tag unknown", lambda: client.set_model_version_tag("iron", "99", "a", "b"))
    tell("untag", lambda: client.delete_model_version_tag("iron", "1", "a"))
    tell("untag again", lambda: client.delete_model_version_tag("iron", "1", "a"))
    tell("untag unknown", lambda: client.delete_model_version_tag("iron", "99", "a"))
    tell("tagged", lambda: client.get_model_version("iron", "1"))
    _aliases(client, tell)
    _stages(client, tell)
    _copies(client, tell)
    tell("delete", lambda: client.delete_model_version("iron", "3"))
    tell("delete again", lambda: client.delete_model_version("iron", "3"))
    tell("deleted", lambda: client.get_model_version("iron", "3"))
    tell("tag deleted", lambda: client.set_model_version_tag("iron", "3", "a", "b"))
    client.set_registered_model_alias("iron", "best", "2")
    tell("delete with alias", lambda: client.delete_model_version("iron", "2"))
    tell("its alias", lambda: client.get_model_version_by_alias("iron", "best"))
    tell("numbers go on", lambda: client.create_model_version("iron", source, run))
    tell("at the end", lambda: client.get_registered_model("iron"))
    for name in ("iron", "steel"):
        client.delete_registered_model(name)


def _bad_sources(run: str, other: str, place: str) -> Iterator[tuple[str, str, str]]:
    """Yield what no server takes."""
    yield "run of another", f"runs:/{run}/model", other
    yield "run not named", f"runs:/{run}/model", ""
    yield "path up", f"runs:/{run}/../model", run
    yield "path up, coded", f"runs:/{run}/%2e%2e/model", run
    yield "path up, coded twice", f"runs:/{run}/%252e%252e/model", run
    yield "place of another", f"{place}/model", other
    yield "place up", f"{place}/../../{other}/artifacts/model", run
    yield "place, beginning alike", f"{place}x/model", run
    yield "local", "/etc", run
    yield "file", "file:///etc", run
    yield "unknown version", "models:/iron/99", ""
    yield "unknown alias", "models:/iron@nobody", ""
    yield "unknown model", "models:/nobody/1", ""


def _aliases(client: MlflowClient, tell: Callable[..., Any]) -> None:
    put, delete = (
        client.set_registered_model_alias,
        client.delete_registered_model_alias,
    )
    get = client.get_model_version_by_alias
    tell("alias", lambda: put("iron", "champion", "1"))
    tell("by alias", lambda: get("iron", "champion"))
    tell("alias moved", lambda: put("iron", "champion", 2))
    tell("by moved alias", lambda: get("iron", "champion"))
    tell("second alias", lambda: put("iron", "Best-1_x", "2"))
    tell("both", lambda: client.get_model_version("iron", "2").aliases)
    tell("in the model", lambda: client.get_registered_model("iron").aliases)
    tell("alias, unknown version", lambda: put("iron", "champion", "99"))
    tell("alias, unknown model", lambda: put("nobody", "champion", "1"))
    for name in ("latest", "Latest", "v1", "V22", "a b", "a.b", "", "a" * 256):
        tell(f"alias {name[:9]!r}", lambda name=name: put("iron", name, "1"))
    tell("by unknown alias", lambda: get("iron", "nobody"))
    tell("by alias of unknown", lambda: get("nobody", "champion"))
    tell("by latest", lambda: get("iron", "latest"))
    tell("unalias", lambda: delete("iron", "champion"))
    tell("unalias again", lambda: delete("iron", "champion"))
    tell("unalias unknown", lambda: delete("nobody", "champion"))
    tell("unaliased", lambda: client.get_registered_model("iron").aliases)
    delete("iron", "Best-1_x")


def _stages(client: MlflowClient, tell: Callable[..., Any]) -> None:
    warnings.simplefilter("ignore", FutureWarning)  # stages are deprecated there
    move = client.transition_model_version_stage
    latest = client.get_latest_versions
    tell("stage", lambda: move("iron", "1", "Production"))
    tell("stage, small letters", lambda: move("iron", "2", "staging"))
    tell("stage unknown", lambda: move("iron", "1", "Museum"))
    tell("stage, unknown version", lambda: move("iron", "99", "Staging"))
    tell("latest", lambda: latest("iron"))
    tell("latest of some", lambda: latest("iron", ["Production", "Archived"]))
    tell("latest, bad stage", lambda: latest("iron", ["Museum"]))
    tell("latest of unknown", lambda: latest("nobody"))
    tell("stage alone", lambda: move("iron", "2", "Production", True))
    tell("the one before", lambda: client.get_model_version("iron", "1").current_stage)
    tell("archive", lambda: move("iron", "2", "Archived"))
    tell("no stage", lambda: move("iron", "2", "None"))
    tell("staged", lambda: client.get_registered_model("iron").latest_versions)


def _copies(client: MlflowClient, tell: Callable[..., Any]) -> None:
    copy = client.copy_model_version
    tell("copy", lambda: copy("models:/iron/1", "steel"))
    tell("copy again", lambda: copy("models:/iron/1", "steel"))
    client.set_registered_model_alias("iron", "best", "1")
    tell("copy by alias", lambda: copy("models:/iron@best", "steel"))
    tell("copy of a copy", lambda: copy("models:/steel/1", "iron"))
    tell("its uri", lambda: client.get_model_version_download_uri("iron", "4"))
    tell("copy unknown", lambda: copy("models:/iron/99", "steel"))
    tell("copy of no version", lambda: copy("runs:/abc/model", "steel"))


def model_searches(teller: Telling) -> None:
    """Models and versions found by what they are, in every order."""
    client, tell = teller.client, teller.tell
    runs = [client.create_run("0").info.run_id for _ in range(2)]
    for number, name in enumerate(("ash", "Birch", "cedar_1", "cedar%2")):
        kind = {"kind": ("Hard", "soft")[number % 2]}
        client.create_registered_model(name, {**kind, f"only.{number}": "x"})
        for version in range(number):
            run = runs[version % 2]
            source = f"runs:/{run}/m{version}"
            client.create_model_version(name, source, run, {"v": f"{name[0]}{version}"})
    client.set_registered_model_alias("cedar_1", "best", "1")
    names = {run: f"run {number}" for number, run in enumerate(runs)}

    def written(text: str | None) -> str | None:
        for number, run in enumerate(runs):
            text = text and text.replace(f"RUN{number}", run)
        return text

    for number, (text, order) in enumerate(MODEL_SEARCHES):
        tell(
            f"models {number}: {text} by {order}",
            lambda text=text, order=order: [
                m.name for m in client.search_registered_models(text, order_by=order)
            ],
        )
    for number, (text, order) in enumerate(VERSION_SEARCHES):
        tell(
            f"versions {number}: {text} by {order}",
            lambda text=text, order=order: [
                (v.name, v.version, names.get(v.run_id))
                for v in client.search_model_versions(written(text), order_by=order)
            ],
        )
    tell("whole", lambda: client.search_registered_models("name = 'cedar_1'")[0])
    tell("whole version", lambda: client.search_model_versions("name = 'cedar_1'")[0])
    tell("pages of models", lambda: list(_pages(client.search_registered_models)))
    tell("pages of versions", lambda: list(_pages(client.search_model_versions)))
    tell("too many", lambda: client.search_registered_models(max_results=1001))
    tell("too many versions", lambda: client.search_model_versions(max_results=200_001))
    tell("none", lambda: client.search_model_versions(max_results=0))
    tell("bad page", lambda: client.search_registered_models(page_token="nonsense"))


def _pages(search: Callable[..., Any]) -> Iterator[list[Any]]:
    token = None
    while True:
        page = search(max_results=2, order_by=["name"], page_token=token)
        yield [(each.name, getattr(each, "version", "")) for each in page]
        token = page.token
        if not token:
            return
