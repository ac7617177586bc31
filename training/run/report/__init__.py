"""report.html of a run folder."""
