"""What is learned from the data: the loss, the size of the output, the metrics."""
