"""Models that are pruned, in PyTorch: their shapes, plans, methods, and the forward that follows a plan."""
