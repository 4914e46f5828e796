"""What the Triton kernels of both cells share."""
