"""Reads OpenMetrics text from its input, as strictly as the official client does, and says what is in it: one line a
family, with its type, its unit or "-", and its number of samples."""

import sys

from prometheus_client.openmetrics.parser import text_fd_to_metric_families

text = sys.stdin.read()
# The parser takes what has no end for whole as long as nothing follows it.
if not text.endswith("# EOF\n"):
    sys.exit("the last line is not # EOF")

names = set()
for family in text_fd_to_metric_families(text.splitlines(keepends=True)):
    if family.name in names:
        sys.exit(f"{family.name} comes twice")
    names.add(family.name)
    if not family.documentation:
        sys.exit(f"{family.name} has no HELP")
    if family.type == "unknown":
        sys.exit(f"{family.name} has no TYPE")
    print(family.name, family.type, family.unit or "-", len(family.samples))
