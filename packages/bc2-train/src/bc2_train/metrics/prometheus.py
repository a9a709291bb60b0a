"""An endpoint that Prometheus scrapes: ``curl http://HOST:PORT/metrics``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bc2_train.errors import TrainError
from bc2_train.metrics.records import Record, StepMetrics
from bc2_train.metrics.scalars import scalars

if TYPE_CHECKING:
    import prometheus_client


class Prometheus:
    """Serves the newest value of every scalar as a gauge with the label ``run``.

    The name of a gauge is that of the scalar in Prometheus's letters, after ``bc2_``:
    ``bc2_lm_loss_training_lm_loss``.

    Args:
        port: Of the first rank's host, on all of its addresses.
        run: The run's name.

    Raises:
        TrainError: prometheus_client is not installed, or the port is taken.
    """

    def __init__(self, port: int, run: str) -> None:
        try:
            import prometheus_client
        except ImportError as error:
            raise TrainError(
                "metrics.prometheus_port needs prometheus_client, which is not installed",
                "python3 -m pip install 'bc2-train[prometheus]'",
            ) from error
        self._client = prometheus_client
        self._registry = prometheus_client.CollectorRegistry()
        self._run = run
        self._gauges: dict[str, prometheus_client.Gauge] = {}
        try:
            self._server, self._thread = prometheus_client.start_http_server(
                port, registry=self._registry
            )
        except OSError as error:
            raise TrainError(
                f"metrics.prometheus_port {port} cannot be listened on: {error}",
                "choose another port, one for each run of this host",
            ) from error

    def write(self, record: Record) -> None:
        """Sets the gauges of a record."""
        values = scalars(record)
        if isinstance(record, StepMetrics):
            values |= {
                "iteration": record.iteration,
                "consumed samples": record.consumed_samples,
                "consumed tokens": record.consumed_tokens,
            }
        for tag, value in values.items():
            self._gauge(tag).labels(run=self._run).set(value)

    def close(self) -> None:
        """Ends the endpoint."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _gauge(self, tag: str) -> prometheus_client.Gauge:
        if tag not in self._gauges:
            name = "bc2_" + re.sub(r"[^a-z0-9]+", "_", tag.lower())
            self._gauges[tag] = self._client.Gauge(name, tag, ["run"], registry=self._registry)
        return self._gauges[tag]
