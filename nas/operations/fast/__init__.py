"""The operations of many edges, or of many options, at once: what the fast supernets are made of.

Everything here gives one value in two implementations: PyTorch's own operations, which run anywhere, and C++ kernels
for the CPU (in ``kernels/``), built at first use where there is a compiler. ``NAS_KERNELS=off`` in the environment does
without the kernels. Tensors are (batch, planes, H, W, C) for the edges of a cell, where a plane belongs to one
operation on one edge; for a chain of layers they are images with the channels innermost.
"""
