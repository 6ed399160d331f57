"""MLflow: a run at MLFLOW_TRACKING_URI, or in a database in the run folder where that is not set."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

from diffnas.runtime.run_folder import Part
from diffnas.sinks.names import remembered, title

MOST_PARAMS, LONGEST = 100, 500  # of one call, and characters of a value


class MLflow:
    """Sends to a run that every attempt goes on with."""

    def __init__(self, part: Part, settings: Mapping[str, Any]) -> None:
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        folder = part.path.absolute()
        self._client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}")
        self._id = remembered(part, "mlflow", lambda: self._create(part, settings))
        self._known = max((point.step for point in self._client.get_metric_history(self._id, "seconds")), default=0)
        self._client.update_run(self._id, status="RUNNING")

    def _create(self, part: Part, settings: Mapping[str, Any]) -> str:
        """Makes a run with the recipe as its parameters and returns its id."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "diffnas")
        experiment = self._client.get_experiment_by_name(name)
        near = None if os.environ.get("MLFLOW_TRACKING_URI") else (part.path.absolute() / "mlflow").as_uri()
        number = experiment.experiment_id if experiment else self._client.create_experiment(name, near)
        run = str(self._client.create_run(number, run_name=title(part)).info.run_id)
        params = [Param(key, str(value)[:LONGEST]) for key, value in settings.items()]
        for start in range(0, len(params), MOST_PARAMS):
            self._client.log_batch(run, params=params[start : start + MOST_PARAMS])
        return run

    def scalars(self, values: Mapping[str, float], epoch: int) -> None:
        """Sends the numbers of `epoch`, unless the program has them."""
        if epoch > self._known:
            now = int(time.time() * 1000)
            self._client.log_batch(self._id, metrics=[Metric(key, value, now, epoch) for key, value in values.items()])

    def picture(self, path: Path) -> None:
        """Sends the picture of the cell."""
        self._client.log_artifact(self._id, str(path))

    def close(self) -> None:
        """Ends the run."""
        self._client.set_terminated(self._id)


def open_sink(part: Part, settings: Mapping[str, Any]) -> MLflow:
    """The sink for `part`."""
    return MLflow(part, settings)
