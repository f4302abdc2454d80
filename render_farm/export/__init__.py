"""Exports: the shards of a run for other programs: nerfstudio, OpenCV, Hugging Face Parquet."""

from render_farm.export.exporting import ExportSummary, Kind, export

__all__ = ["ExportSummary", "Kind", "export"]
