"""A checkpoint: where it lies, what it holds, which model it is of, and how its tensors fit timm's."""
