"""What the benchmark programs share: clocks, records, the library's own step, worker processes."""

from measure.arguments import base_parser as base_parser
from measure.arguments import numbers as numbers
from measure.arguments import plain_parser as plain_parser
from measure.arguments import words as words
from measure.records import Recording as Recording
from measure.records import digest as digest
from measure.records import latest as latest
from measure.records import read_records as read_records
from measure.timing import Sample as Sample
from measure.timing import calls_for as calls_for
from measure.timing import clocked as clocked
from measure.timing import interleave as interleave
from measure.timing import ratios as ratios
from measure.timing import row as row
from measure.timing import spread as spread
from measure.timing import table as table
