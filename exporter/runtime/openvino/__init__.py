"""OpenVINO: graphs compiled for its devices, and what those devices are good at. Torch-free."""
