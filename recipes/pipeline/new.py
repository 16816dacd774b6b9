"""A commented recipe for a model, every value the default."""

from __future__ import annotations

from ...calibration.tokens.cost import dense_plan, model_macs
from ...exporter.pruning.load import create_model
from ...exporter.pruning.methods import DEFAULT
from ...exporter.pruning.shape import describe

_TEMPLATE = """# {name}: {depth} blocks, {tokens} tokens, {dense:.2f} GMACs dense. Keys left out keep their default.
model:
  name: {name}
  pretrained: true            # fetch timm's weights; or checkpoint: FILE.safetensors, or random: SEED to try things out

images:
  path: photos/               # a folder of photos, of class folders (for accuracy), or an .npz; from this file's folder
  count: 64                   # spread evenly over the folder; what is left over measures agreement

prune:
  method: {method}          # see `vitrim methods`
  target: {{gflops: {target:.2f}}}      # or flops_ratio: 0.65, or speedup: 1.5; or a preset, keep_rates, mass, budget
  # blocks: {blocks}         # where tokens go; null lets the rule decide
  # search: {{trials: 100}}     # Monte-Carlo search on the images, a few minutes

export:
  target: ort-cpu             # ort-cuda, ort-trt, jetpack-5, -6.0, -6, -7, -7.2, trt-11; see `vitrim targets`
  batch: 1
  # input: uint8              # pixels [batch, height, width, 3] in, the normalization folded in
  # top_k: 5                  # probabilities and classes of the best beside the logits

precision:
  name: fp32                  # fp16, bf16 or int8, where the target has them; see docs/precision.md

parity: {{atol: 1.0e-4}}
bench: {{runs: 50}}
"""


def new_recipe(name: str) -> str:
    """See `vitrim.api.new`."""
    shape = describe(create_model(name, random=0))
    dense = model_macs(shape, dense_plan(shape)) / 1e9
    blocks = [shape.depth * (index + 1) // 4 for index in range(3)]
    return _TEMPLATE.format(
        name=name,
        depth=shape.depth,
        tokens=shape.tokens,
        dense=dense,
        method=DEFAULT,
        target=0.65 * dense,
        blocks=blocks,
    )
