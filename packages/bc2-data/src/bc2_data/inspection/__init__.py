"""What ``bc2-data inspect`` shows: figures, single documents and a report to pass on."""
