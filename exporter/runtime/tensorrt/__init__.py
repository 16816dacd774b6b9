"""TensorRT engines: versions and typing, builds, a look inside, runs."""
