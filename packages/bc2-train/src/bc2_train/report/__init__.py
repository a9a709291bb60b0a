"""What runs achieved, as a report: rates, losses, plots, against a reference."""

from bc2_train.report.rates import WARMUP_STEPS, Rates, mean_loss, steady_rates, summary_table
from bc2_train.report.steps import load_metrics

__all__ = ["WARMUP_STEPS", "Rates", "load_metrics", "mean_loss", "steady_rates", "summary_table"]
