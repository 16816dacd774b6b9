"""Making the artefact: budget, pruned model, ONNX, passes, lint and the torch-free runtime."""
