"""What a bundle's pruning costs in answers, on any number of images, in any number of processes. Torch-free."""
