"""The recurrent run on an NVIDIA GPU: the kernels of `ssm.kernels` again, in triton."""
