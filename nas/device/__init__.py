"""Where a run computes: compilation, CUDA graphs, transfers; applied from outside."""
