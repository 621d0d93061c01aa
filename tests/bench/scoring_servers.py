"""Other servers of the same model, each in an environment of its own.

Run as ``python scoring_servers.py KIND MODEL PORT FOLDER`` by that environment's
interpreter: fits the model on the folder's rows and serves it on loopback. Each is as
its own documentation has it, one process, without logging what was asked.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"


def fitted(model: str, folder: Path) -> Any:
    """Fit the model that the folder describes."""
    import numpy as np
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    with np.load(folder / "rows.npz") as rows:
        matrix, target = rows["matrix"].astype(np.float64), rows["target"]
    parameters = json.loads((folder / "parameters.json").read_text("utf-8"))[model]
    if model == "forest":
        found = RandomForestClassifier(random_state=0, n_jobs=1, **parameters)
    else:
        found = make_pipeline(StandardScaler(), LogisticRegression(**parameters))
    return found.fit(matrix, target)


def _become(command: list[str]) -> None:
    os.execv(command[0], command)  # noqa: S606 - there is no shell to be had


def mlflow(model: str, port: int, folder: Path) -> None:
    """``mlflow models serve``."""
    import mlflow.sklearn

    place = folder / f"mlflow-{model}"
    mlflow.sklearn.save_model(
        fitted(model, folder),
        place,
        pip_requirements=[],
        skops_trusted_types=["sklearn.tree._tree.Tree"],
    )
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(place)]
    command += ["--env-manager", "local", "-h", HOST, "-p", str(port)]
    _become(command)


def mlserver(model: str, port: int, folder: Path) -> None:
    """MLServer with its scikit-learn runtime."""
    import joblib

    place = folder / f"mlserver-{model}"
    place.mkdir()
    joblib.dump(fitted(model, folder), place / "model.joblib")
    settings = {
        "host": HOST,
        "http_port": port,
        "grpc_port": port + 1,
        "metrics_port": port + 2,
        "parallel_workers": 0,  # with others it does not start beside today's packages
        "debug": False,
    }
    described = {
        "name": "peer",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": "./model.joblib"},
    }
    (place / "settings.json").write_text(json.dumps(settings), "utf-8")
    (place / "model-settings.json").write_text(json.dumps(described), "utf-8")
    program = str(Path(sys.executable).with_name("mlserver"))
    _become([program, "start", str(place)])


BENTO = """
import bentoml, joblib

@bentoml.service(workers=1)
class Peer:
    def __init__(self) -> None:
        self.model = joblib.load("model.joblib")

    @bentoml.api
    def predict(self, rows: list[list[float]]) -> list[int]:
        return self.model.predict(rows).tolist()
"""


def bentoml(model: str, port: int, folder: Path) -> None:
    """BentoML, one worker."""
    import joblib

    place = folder / f"bentoml-{model}"
    place.mkdir()
    joblib.dump(fitted(model, folder), place / "model.joblib")
    (place / "service.py").write_text(BENTO, "utf-8")
    os.chdir(place)
    os.environ |= {"BENTOML_HOME": str(place), "BENTOML_DO_NOT_TRACK": "True"}
    program = str(Path(sys.executable).with_name("bentoml"))
    command = ["serve", "service:Peer", "--host", HOST, "--port", str(port)]
    _become([program, *command])


def fastapi(model: str, port: int, folder: Path) -> None:
    """A plain FastAPI handler around the model."""
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel

    found, app = fitted(model, folder), FastAPI()

    class Rows(BaseModel):
        rows: list[list[float]]

    @app.post("/predict")
    def predict(asked: Rows) -> list[int]:
        answers: list[int] = found.predict(asked.rows).tolist()
        return answers

    uvicorn.run(app, host=HOST, port=port, log_level="warning", access_log=False)


def onnx(model: str, port: int, folder: Path) -> None:
    """The bare limit: our graph in ONNX Runtime behind an application of ten lines."""
    import numpy as np
    import onnxruntime
    import orjson
    import uvicorn

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / f"{model}.onnx", options)
    names = [one.name for one in session.get_inputs()]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        rows = np.array(orjson.loads(body)["rows"], dtype=np.float32)
        feeds = {n: rows[:, i : i + 1] for i, n in enumerate(names)}
        said = orjson.dumps(session.run(["prediction"], feeds)[0].ravel().tolist())
        headers = [(b"content-length", str(len(said)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": said})

    uvicorn.run(app, host=HOST, port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    kind, of_model, at_port, in_folder = sys.argv[1:]
    known = {one.__name__: one for one in (mlflow, mlserver, bentoml, fastapi, onnx)}
    known[kind](of_model, int(at_port), Path(in_folder))
