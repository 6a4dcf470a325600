// All kernels as one translation unit: it takes as long as the sum of its pieces, without their headers.

#include "activation.cpp"
#include "batch_norm_tangent.cpp"
#include "depthwise.cpp"
#include "gated_mixture.cpp"
#include "mixed_pooling.cpp"
#include "mixture.cpp"
#include "normalisation.cpp"
#include "pooling.cpp"
#include "separable.cpp"
