"""Precision written into the graph: fp16 and bf16 as casts and typed initializers, int8 as Q/DQ pairs.

`float32_nodes.py` says which nodes stay in float32, `half.py` types the others, `ranges.py` measures activations on
images, `qdq.py` writes Q/DQ, `modelopt.py` has NVIDIA's tool measure for it, `equalize.py` evens out channels first,
`integer.py` turns Q/DQ into onnxruntime's integer products, and `report.py` is what an export says of all that.
"""
