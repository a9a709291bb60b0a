"""What a run says of each step, and to whom: files, TensorBoard, Weights & Biases, Prometheus."""

from bc2_train.metrics.measure import log_line, measure
from bc2_train.metrics.records import Evaluation, RankTimes, Record, Save, StepMetrics
from bc2_train.metrics.writer import MetricsWriter

__all__ = [
    "Evaluation",
    "MetricsWriter",
    "RankTimes",
    "Record",
    "Save",
    "StepMetrics",
    "log_line",
    "measure",
]
