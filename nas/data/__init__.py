"""Data sets, their splits, batched augmentation and streams of batches."""
