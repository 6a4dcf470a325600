"""One module per family of reference files: functions from a file to comparisons with what this package computes."""
