"""The user's pairs, in every form that is read: sources.py says what DATA can be, json_files.py, tars.py and
table_files.py read its records, survey.py finds out which field is what, rows.py makes rows, images.py opens an image.

A row that cannot be used is rejected with its reason (rejections.py), never a crash and never silent. Pixels are read
in the pass; here only the rows are.
"""

from precompute.data.arrow_tables import Cell
from precompute.data.disk.row_table import RowTable, SampleIds, as_table, indices, take
from precompute.data.images import DecodedImage, check_size, header_size, open_image, write_thumbnail
from precompute.data.records import BadRow, Columns, Data, RejectedRow, Row, Slice, no_rows
from precompute.data.rejections import all_rejected_message, count_kinds, summary, summary_of
from precompute.data.rows import ALL_REJECTED, guess_line, read, refuse_no_image, stream
from precompute.data.sources import METADATA, matching_paths
from precompute.data.survey import Survey, survey

__all__ = [
    "ALL_REJECTED", "METADATA", "BadRow", "Cell", "Columns", "Data", "DecodedImage", "RejectedRow", "Row", "RowTable",
    "SampleIds", "Slice", "Survey", "all_rejected_message", "as_table", "check_size", "count_kinds", "guess_line",
    "header_size", "indices", "matching_paths", "no_rows", "open_image", "read", "refuse_no_image", "stream", "summary",
    "summary_of", "survey", "take", "write_thumbnail",
]  # fmt: skip
