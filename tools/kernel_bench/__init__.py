"""What tools/bench_kernels.py measures: limits of the machine, kernels beside them, the training step, its memory."""
