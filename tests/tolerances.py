"""The few tolerances that tests compare with, each with its reason."""

FORWARD32 = 2e-6  # relative L2 of values: sums of a hundred float32 products, in another order
GRADIENT32 = 2e-5  # relative L2 of gradients: sums over thousands of points
INPUT_GRADIENT32 = 1e-4  # differences of table entries times the level's resolution
TF32 = 2e-3  # relative L2 on tensor cores: factors rounded to 11 bits in every layer
EXACT64 = 1e-12  # relative L2 of the double instantiations: order of summation alone
HALF = 5e-3  # relative L2 of values in half precision: 2^-11 at each of a network's layers
HALF_GRADIENT = 3e-2  # the same of gradients: ReLUs near zero switch, and sums are rounded
HALF_IMAGE = 0.01  # mean difference of colours in [0, 1] of a field rendered in single and half precision
SCAN32 = 1e-5  # products and sums along a ray
BOUNDARY = 1e-5  # depths: a step's edge is rounded once per step


def relative(found, expected) -> float:
    """Relative L2 distance."""
    return float((found - expected).norm() / expected.norm().clamp_min(1e-30))
