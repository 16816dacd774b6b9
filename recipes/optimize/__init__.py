"""`vitrim optimize`: an ONNX file alone, from the file to a bundle."""
