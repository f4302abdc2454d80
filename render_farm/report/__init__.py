"""A run as a page for people: what succeeded, what failed and why, where the time went, what it all looks like.

data     manifest -> typed rows          sheets   shards -> contact sheets
charts   numbers -> inline SVG           page     all of it -> report/index.html
"""

from render_farm.report.data import ReportData, read_report_data
from render_farm.report.page import RunFacts, write_report

__all__ = ["ReportData", "RunFacts", "read_report_data", "write_report"]
