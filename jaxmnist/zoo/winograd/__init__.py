"""A chain of [3x3 convolution, relu, 2x2 average pooling] blocks, several times faster on a CPU.

XLA's convolution on CPUs runs far below the machine's peak, the further the larger the batch. The
functions here compute the same mathematics in plain JAX operations, for what an image classifier's
trunk repeats: `avg_pool(relu(conv3x3(x, kernel, padding="SAME") + bias), (2, 2), strides=(2, 2))`.

**The transforms.** Winograd's minimal filtering F(2x2, 3x3), as in Lavin & Gray, arXiv:1509.09308.
In one dimension, two outputs of a filter g of three taps over four inputs d are

    y0 = d0 g0 + d1 g1 + d2 g2 = m0 + m1 + m2,      m0 = (d0 - d2) g0
    y1 = d1 g0 + d2 g1 + d3 g2 = m1 - m2 - m3,      m1 = (d1 + d2) (g0 + g1 + g2) / 2
                                                    m2 = (d2 - d1) (g0 - g1 + g2) / 2
                                                    m3 = (d1 - d3) g2

(expand m1 + m2 and m1 - m2 to see it): four products in place of six. As matrices,
y = A^T [(G g) * (B^T d)]. Nested in two dimensions, a tile of 4x4 inputs yields 2x2 outputs,

    Y = A^T [U * V] A,      U = G g G^T,      V = B^T d B,

with 16 products in place of 36. Summed over input channels, the products are 16 independent matrix
products [tiles, c] @ [c, k], which a CPU runs near its peak. All but relu is linear, so the
gradients are the transposes:

    dM = A dY A^T,   dU = V^T dM,   dV = dM U^T,   dg = G^T dU G,   dd = B dV B^T.

y0 never touches d3, nor y1 d0, not even in rounding: where the nine inputs of a pixel are zero, its
output is exactly the bias. So ties at relu, common on black borders, fall as in any convolution.

**Why it is fast.** The 2x2 outputs of a tile are one pooling window, so that the inverse transform,
bias, relu and pooling are one elementwise loop, and of the full resolution only signs are stored.
The other transforms go along one axis after the other, each result in one array: a loop over long
runs for XLA. A scan over microbatches of four images keeps what a block makes in a core's cache,
with matrix products still large enough to be fast. A first block with one input channel has nothing
to sum over: a matrix product would be mostly overhead, and a direct elementwise sum of nine terms
over the same tiles wins. Pooling drops the last row of an odd size, so that no tile hangs over that
edge: there the windows simply need no padding.

Arrays within are [h, w, b, c], so that the slices of a tile are whole contiguous blocks.
"""

from jaxmnist.zoo.winograd.chain import conv_relu_pool as conv_relu_pool
from jaxmnist.zoo.winograd.chain import conv_relu_pool_chain as conv_relu_pool_chain
from jaxmnist.zoo.winograd.chain import features as features
from jaxmnist.zoo.winograd.chain import obstacle as obstacle
