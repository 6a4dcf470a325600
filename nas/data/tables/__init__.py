"""Tables of a user's own: from a CSV or Parquet file to a network's inputs and targets."""
