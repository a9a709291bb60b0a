"""What ``bc2-data inspect`` shows: figures, single documents and a report to pass on."""

from bc2_data.inspection.comparison import compare
from bc2_data.inspection.html_report import render_report
from bc2_data.inspection.summary import describe, describe_manifest
from bc2_data.inspection.terminal import show_document

__all__ = ["compare", "describe", "describe_manifest", "render_report", "show_document"]
