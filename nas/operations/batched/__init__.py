"""The operations of many edges at once: what the fast supernets are made of.

Everything here has one value and two implementations: PyTorch's own operations, which run anywhere, and C++ kernels
for the CPU (``kernels.cpp``), built at first use where there is a compiler. ``NAS_KERNELS=off`` in the environment does
without the kernels. Tensors are (batch, planes, H, W, C): a plane belongs to one operation on one edge.
"""
