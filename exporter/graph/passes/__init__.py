"""onnx-graphsurgeon rewrites, one per file."""
