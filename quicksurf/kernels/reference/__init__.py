"""The kernels' specification in plain torch: values and gradients."""
