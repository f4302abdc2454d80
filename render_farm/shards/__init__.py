"""Shards: sealed tars and their receipts, the manifest merged from them, and their verification.

outputs     a folder or an fsspec URL              seal, receipts    staged objects -> tar + receipt (digested JSON)
manifest    receipts -> three Parquet tables       duplicates        clusters (near: pictures) and splits    tables    columns
verify      is everything what was sealed?
"""

from render_farm.shards.duplicates import Identity, Kinship, find_kin, split_of
from render_farm.shards.manifest import ManifestSummary, build_manifest, read_manifest, read_rows
from render_farm.shards.outputs import Output, check_writable, open_output
from render_farm.shards.receipts import (
    Member,
    Receipt,
    Sample,
    is_sealed,
    list_receipts,
    read_parts,
    read_receipt,
    read_sample,
)
from render_farm.shards.seal import run_context, seal_shard
from render_farm.shards.tables import PIXEL_COLUMNS, RUN_COLUMNS
from render_farm.shards.verify import Problem, verify

__all__ = [
    "PIXEL_COLUMNS",
    "RUN_COLUMNS",
    "Identity",
    "Kinship",
    "ManifestSummary",
    "Member",
    "Output",
    "Problem",
    "Receipt",
    "Sample",
    "build_manifest",
    "check_writable",
    "find_kin",
    "is_sealed",
    "list_receipts",
    "open_output",
    "read_manifest",
    "read_parts",
    "read_receipt",
    "read_rows",
    "read_sample",
    "run_context",
    "seal_shard",
    "split_of",
    "verify",
]
