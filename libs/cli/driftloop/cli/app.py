"""``driftloop``: the local stack, pipelines, models and the log, for people."""

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from driftloop.cli import data, gc, letters, lineage, models, personal, stack
from driftloop.cli.access import command as access
from driftloop.cli.alerts.command import alerts_app
from driftloop.cli.backtest.command import backtest
from driftloop.cli.context import CommandError, connect
from driftloop.cli.cost.command import cost
from driftloop.cli.datasets.command import datasets_app
from driftloop.cli.demo.command import DEFAULT_FOLDER, demo_command
from driftloop.cli.demo.run import DemoError
from driftloop.cli.edge import command as edge
from driftloop.cli.erasures.command import erasures_app
from driftloop.cli.federated.command import federated_app
from driftloop.cli.jobs.command import jobs_app
from driftloop.cli.labels.command import labels_app
from driftloop.cli.log import LogTimeoutError
from driftloop.cli.options import (
    HOME,
    By,
    Environment,
    Home,
    Json,
    Reason,
    print_answer,
)
from driftloop.cli.options import console as _console
from driftloop.cli.options import print_json as _print_json
from driftloop.cli.packages import command as packages
from driftloop.cli.performance.command import performance
from driftloop.cli.publish import Pace, PublishFileError, title_of
from driftloop.cli.rebuild.command import rebuild
from driftloop.cli.schema.command import schema_app
from driftloop.cli.scores import command as scores
from driftloop.cli.size.command import size
from driftloop.cli.verdicts.command import overrule, verdicts
from driftloop.cli.why import UnknownModelError
from driftloop.contracts.pipeline import PRODUCTION, PipelineFileError
from driftloop.local.home import StackError
from driftloop.local.jars import JarError
from driftloop.local.kafka import KafkaError
from driftloop.runtime.data.reading import DatasetError
from driftloop.runtime.transport import PublishError
from rich.console import Console

EXIT_REFUSED = 1
EXPECTED = (
    CommandError,
    DatasetError,
    DemoError,
    JarError,
    KafkaError,
    LogTimeoutError,
    PipelineFileError,
    PublishError,
    PublishFileError,
    StackError,
    UnknownModelError,
)

app = typer.Typer(
    help="Models decay while the world changes. driftloop keeps them right.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
letters_app = typer.Typer(
    help="Messages that could not be handled.", no_args_is_help=True
)
app.add_typer(letters_app, name="dead-letters", rich_help_panel="Pipelines and data")
app.add_typer(alerts_app, name="alerts", rich_help_panel="Pipelines and data")
app.add_typer(datasets_app, name="datasets", rich_help_panel="Pipelines and data")
app.add_typer(erasures_app, name="erasures", rich_help_panel="Personal data")
app.add_typer(federated_app, name="federated", rich_help_panel="Models")
app.add_typer(jobs_app, name="jobs", rich_help_panel="Models")
app.add_typer(labels_app, name="labels", rich_help_panel="Pipelines and data")
app.add_typer(scores.scores_app, name="scores", rich_help_panel="Models")
app.add_typer(schema_app, name="schema", rich_help_panel="Pipelines and data")


# ── local stack ─────────────────────────────────────────────────────────────


@app.command(rich_help_panel="Local stack")
def up(
    home: Home = HOME,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay, with all logs, until Ctrl-C.")
    ] = False,
    scorers: Annotated[
        int,
        typer.Option(min=1, max=64, help="Processes that answer at the scorer's port."),
    ] = 1,
    environments: Annotated[
        list[str] | None,
        typer.Option(
            "--environment",
            help="Also a scorer of this environment before production; repeatable.",
        ),
    ] = None,
) -> None:
    """Start real Kafka and all services as local processes."""
    stack.up(home, foreground, scorers, _console(), environments or ())


@app.command(rich_help_panel="Local stack")
def down(
    home: Home = HOME,
    wipe: Annotated[
        bool, typer.Option("--wipe", help="Also delete all state of this home.")
    ] = False,
) -> None:
    """Stop the local stack; its data stay unless --wipe."""
    stack.down(home, wipe, _console())


@app.command(rich_help_panel="Local stack")
def status(home: Home = HOME, as_json: Json = False) -> None:
    """Show each process, its port, whether it is ready, and the links."""
    report = stack.status(home)
    if as_json:
        _print_json(report)
    elif report["state"] == "stopped":
        _console().print(
            f"driftloop is stopped in {report['home']}; start it: driftloop up",
            soft_wrap=True,
        )
    else:
        stack.show(report, _console())


@app.command(rich_help_panel="Local stack")
def traces(home: Home = HOME) -> None:
    """Show the traces of all chains in Zipkin, those of the past as well."""
    stack.traces(home, _console())


app.command(rich_help_panel="Local stack")(rebuild)


# ── pipelines and data ──────────────────────────────────────────────────────


@app.command(rich_help_panel="Pipelines and data")
def apply(
    file: Annotated[Path, typer.Argument(help="The pipeline file (YAML).")],
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Validate a pipeline file and put it into force."""
    spec = data.apply(connect(home), file)
    if as_json:
        _print_json(spec.model_dump(mode="json"))
    else:
        _console().print(f"pipeline [bold]{spec.name}[/] applied")


@app.command(rich_help_panel="Pipelines and data")
def publish(
    path: Annotated[
        Path,
        typer.Argument(
            help="CSV, Parquet or NDJSON, also .gz or .zst; or a folder of them."
        ),
    ],
    pipeline: Annotated[str, typer.Option("--pipeline", "-p", help="Pipeline's name.")],
    source: Annotated[
        str | None,
        typer.Option(help="Name of the upstream system; default: the path's name."),
    ] = None,
    batch_hours: Annotated[
        float, typer.Option(min=0.01, help="Event time in one message.")
    ] = 24,
    label_delay_hours: Annotated[
        float | None,
        typer.Option(min=0, help="Send the target later by id, as a label."),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Rows per second.")
    ] = None,
    speed: Annotated[
        float | None, typer.Option(min=0.001, help="Days of event time per second.")
    ] = None,
    payloads: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the files that rows name; default: that of the rows' file."
        ),
    ] = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Publish files as an upstream system would; a broken run goes on."""
    day_s = timedelta(days=1).total_seconds()
    how = data.How(
        source or title_of(path.resolve()),
        timedelta(hours=batch_hours),
        None if label_delay_hours is None else timedelta(hours=label_delay_hours),
        Pace(rate, speed * day_s if speed else None),
        payloads,
    )
    report = data.publish(connect(home), path, pipeline, how, _console(as_json))
    if as_json:
        _print_json(report)


@app.command(rich_help_panel="Pipelines and data")
def watch(
    pipeline: Annotated[
        str | None, typer.Argument(help="Only this pipeline; default: all.")
    ] = None,
    rows: Annotated[
        bool, typer.Option("--rows", help="Also every batch of rows.")
    ] = False,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Begin with the whole log.")
    ] = False,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Show the chain live, until Ctrl-C."""
    data.watch(connect(home), pipeline, rows, from_start, as_json, _console())


app.command(rich_help_panel="Models")(performance)


# ── personal data ───────────────────────────────────────────────────────────


@app.command(rich_help_panel="Personal data")
def erase(
    pipeline: Annotated[str, typer.Argument(help="Pipeline's name.")],
    subject: Annotated[str, typer.Option(help="The person's id, as upstream has it.")],
    reason: Reason,
    by: By = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Propose that a person's data becomes unreadable; another person confirms it."""
    answer = personal.erase(connect(home), pipeline, subject, by, reason)
    if as_json:
        _print_json(answer)
    else:
        _console().print(
            f"{pipeline}: erasure of {answer['subject']} proposed; nothing is gone "
            f"yet. Another person: driftloop erasures confirm {pipeline} "
            f"{answer['proposal_id']} --reason TEXT",
            soft_wrap=True,
        )


@app.command(rich_help_panel="Personal data")
def reveal(
    pipeline: Annotated[str, typer.Argument(help="Pipeline's name.")],
    value: Annotated[str, typer.Argument(help="A token, or an encrypted value.")],
    reason: Reason,
    by: By = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Read one value (with DRIFTLOOP_REVEAL_TOKEN); the log says who did, and why."""
    answer = personal.reveal(connect(home), pipeline, value, by, reason)
    if as_json:
        _print_json(answer)
    else:
        sys.stdout.write(f"{answer['field']}: {answer['value']}\n")


# ── models ──────────────────────────────────────────────────────────────────


@app.command("models", rich_help_panel="Models")
def list_models(
    pipeline: Annotated[str | None, typer.Argument(help="Only this pipeline.")] = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """List versions: what they are worth and where they are."""
    versions = models.versions(connect(home), pipeline)
    if as_json:
        _print_json(versions)
    else:
        _console().print(models.version_table(versions), soft_wrap=not versions)


@app.command(rich_help_panel="Models")
def why(
    model: Annotated[
        str, typer.Argument(help="bike-demand (its champion) or bike-demand/3.")
    ],
    with_ids: Annotated[
        bool, typer.Option("--ids", help="Also each event's id.")
    ] = False,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Why is this model in production? The causal story, from the log."""
    story = models.why(connect(home), model)
    if as_json:
        _print_json(models.story_json(story))
    else:
        _console().print(models.story_tree(story, with_ids))


@app.command("lineage", rich_help_panel="Models")
def show_lineage(
    thing: Annotated[
        str,
        typer.Argument(
            help="bike-demand/3, bike-demand (its champion), "
            "dataset/bike-demand/730.365, or the id of an event or a training."
        ),
    ],
    upstream: Annotated[
        bool, typer.Option("--upstream", help="Only what it came of.")
    ] = False,
    downstream: Annotated[
        bool, typer.Option("--downstream", help="Only what it went into.")
    ] = False,
    depth: Annotated[int, typer.Option(min=1, max=100, help="Steps.")] = 10,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Show what something came of, and what it went into."""
    direction = "both"
    if upstream != downstream:
        direction = "upstream" if upstream else "downstream"
    answer = lineage.lineage(connect(home), thing, direction, depth)
    if as_json:
        _print_json(answer)
    else:
        _console().print(lineage.lineage_view(answer))


@app.command(rich_help_panel="Models")
def card(
    model: Annotated[str, typer.Argument(help="bike-demand/3")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A file: .html with pictures, or .json."),
    ] = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Show what a version is for, how good it is, what changed: its model card."""
    if output is not None:
        models.write_card(connect(home), model, output)
        _console().print(f"wrote {output}")
        return
    found = models.card(connect(home), model)
    if as_json:
        _print_json(found)
    else:
        sys.stdout.write(models.card_text(found) + "\n")


app.command(rich_help_panel="Models")(cost)
app.command(rich_help_panel="Models")(packages.bom)
app.command(rich_help_panel="Models")(packages.reproduce)
app.command(rich_help_panel="Models")(edge.export)
app.command(rich_help_panel="Models")(edge.edges)


@app.command(rich_help_panel="Models")
def approve(
    model: Annotated[str, typer.Argument(help="bike-demand/3")],
    reason: Reason,
    by: By = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Let a version that waits for a person go into rollout."""
    _decide("approve", model, by, reason, home, as_json)


@app.command(rich_help_panel="Models")
def reject(
    model: Annotated[str, typer.Argument(help="bike-demand/3")],
    reason: Reason,
    by: By = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Refuse a version that waits for a person."""
    _decide("reject", model, by, reason, home, as_json)


def _decide(
    decision: str,
    model: str,
    by: str | None,
    reason: str,
    home: Path,
    as_json: bool,
    otherwise: str | None = None,
) -> None:
    """Say it, and show where the version is then; ``otherwise`` where nobody knows."""
    answer = models.decide(connect(home), decision, model, by, reason)
    standing = models.standing(answer, otherwise or decision)
    print_answer(answer, f"{model}: {standing}", as_json)


@app.command(rich_help_panel="Models")
def request_approval(
    model: Annotated[str, typer.Argument(help="bike-demand/3")],
    reason: Reason,
    by: By = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Ask people again about a version whose request for approval has expired."""
    answer = models.ask_again(connect(home), "request-approval", model, by, reason)
    print_answer(answer, f"{model}: {models.standing(answer, 'asked again')}", as_json)


@app.command(rich_help_panel="Models")
def promote(
    model: Annotated[str, typer.Argument(help="bike-demand/3")],
    reason: Reason,
    by: By = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Let a version that waits go on to the next environment."""
    said = "promote said; see `driftloop watch`"
    _decide("promote", model, by, reason, home, as_json, said)


@app.command(rich_help_panel="Models")
def refuse_promotion(
    model: Annotated[str, typer.Argument(help="bike-demand/3")],
    reason: Reason,
    by: By = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Keep a version that waits from the next environment; it is taken back."""
    said = "refuse-promotion said; see `driftloop watch`"
    _decide("refuse-promotion", model, by, reason, home, as_json, said)


@app.command(rich_help_panel="Models")
def request_promotion(
    model: Annotated[str, typer.Argument(help="bike-demand/3")],
    reason: Reason,
    by: By = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Ask people again whether a version may go on; the last request has expired."""
    answer = models.ask_again(connect(home), "request-promotion", model, by, reason)
    print_answer(answer, f"{model}: asked again; see `driftloop watch`", as_json)


@app.command(rich_help_panel="Models")
def rollback(
    pipeline: Annotated[str, typer.Argument(help="Pipeline's name.")],
    reason: Reason,
    by: By = None,
    to_version: Annotated[
        int | None, typer.Option("--to", help="Default: the version before.")
    ] = None,
    environment: Environment = PRODUCTION,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Bring an earlier version back into service."""
    answer = models.rollback(
        connect(home), pipeline, by, reason, to_version, environment
    )
    print_answer(answer, f"{pipeline}: rollback requested", as_json)


@app.command(rich_help_panel="Models")
def rollout(
    action: Annotated[
        models.Steering,
        typer.Argument(help="hold: no further step; promote: in front."),
    ],
    model: Annotated[str, typer.Argument(help="PIPELINE/VERSION that is on its way.")],
    reason: Reason,
    by: By = None,
    environment: Environment = PRODUCTION,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Hold the rollout of a version, let it go on, or cut it short."""
    answer = models.steer(connect(home), action, model, by, reason, environment)
    print_answer(
        answer, f"{model}: {action.value} requested; see `driftloop watch`", as_json
    )


@app.command(rich_help_panel="Models")
def retrain(
    pipeline: Annotated[str, typer.Argument(help="Pipeline's name.")],
    reason: Reason,
    by: By = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Ask for a training now."""
    answer = models.retrain(connect(home), pipeline, by, reason)
    print_answer(answer, f"{pipeline}: training requested", as_json)


app.command(rich_help_panel="Models")(verdicts)
app.command(rich_help_panel="Models")(overrule)
app.command(rich_help_panel="Models")(scores.score)
app.command(rich_help_panel="Models")(size)
app.command(rich_help_panel="Models")(backtest)


# ── rights and their use ────────────────────────────────────────────────────

app.add_typer(access.tokens_app, name="tokens", rich_help_panel="Rights")
app.command(rich_help_panel="Rights")(access.me)
app.command(rich_help_panel="Rights")(access.verify)


# ── dead letters ────────────────────────────────────────────────────────────


@letters_app.command("list")
def letters_list(
    service: Annotated[str | None, typer.Argument(help="Only this service's.")] = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Show what could not be handled, and why."""
    found = letters.dead_letters(connect(home), service)
    if as_json:
        _print_json([letter.as_json() for letter in found])
    else:
        _console().print(letters.dead_letter_table(found))


@letters_app.command("replay")
def letters_replay(
    service: Annotated[str, typer.Argument(help="Whose dead letters.")],
    letter: Annotated[
        str | None, typer.Option("--id", help="Only this one; default: all.")
    ] = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Send dead letters to their topic again; each is handled at most once."""
    number = letters.replay(connect(home), service, letter)
    if as_json:
        _print_json({"replayed": number})
    else:
        _console().print(f"{number} replayed")


@app.command("gc", rich_help_panel="Local stack")
def collect(
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete them; default: only say what.")
    ] = False,
    grace_hours: Annotated[
        float,
        typer.Option(
            min=gc.MIN_GRACE_HOURS, help="Younger objects stay, referred to or not."
        ),
    ] = gc.GRACE_HOURS,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Find objects of the artifact store, and answers, that nobody needs."""
    report = gc.collect(connect(home), grace_hours, delete=delete)
    if as_json:
        _print_json(report.as_json())
    else:
        _console().print(gc.report_view(report), soft_wrap=True)


@app.command(rich_help_panel="Local stack")
def demo(
    folder: Annotated[Path, typer.Option(help="The example.")] = DEFAULT_FOLDER,
    home: Annotated[Path, typer.Option(help="State of the demo.")] = Path(
        ".driftloop/demo"
    ),
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the stack up, go on publishing.")
    ] = False,
) -> None:
    """Run two real years through the whole chain in a few minutes."""
    kept = demo_command(_console(), home, folder, keep)
    raise typer.Exit(0 if kept else EXIT_REFUSED)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except EXPECTED as error:
        Console(stderr=True, highlight=False).print(
            f"[bold red]driftloop:[/] {error}", soft_wrap=True
        )
        sys.exit(EXIT_REFUSED)


def main() -> None:
    """Entry point: expected errors are one clear line, not a traceback."""
    # What Kafka's client says of a broker that comes and goes is for log files.
    logging.getLogger("driftloop").setLevel(logging.CRITICAL)
    signal.signal(signal.SIGTERM, _interrupt)  # so that a killed demo cleans up too
    with _explained():
        app()


def _interrupt(number: int, frame: object) -> None:
    del number, frame
    raise KeyboardInterrupt
