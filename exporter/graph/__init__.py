"""Graphs in ONNX: traced, rewritten, checked, linted, brought to a precision."""
