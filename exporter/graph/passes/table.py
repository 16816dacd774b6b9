"""All passes, in order."""

from __future__ import annotations

from .attention_scale import DIRECT_TRANSPOSE, ONE_SCALE
from .attention_to_primitives import PLAIN_ATTENTION
from .base import Pass
from .empty_pads import NO_EMPTY_PADS
from .first_extreme import FIRST_EXTREME
from .float_comparison import FLOAT_COMPARISON
from .fold_constants import FOLD, FOLD_AGAIN
from .fused_attention import FUSED_ATTENTION, MEAN_BEFORE_TRANSPOSE
from .heads_split import HEADS_SPLIT
from .lower_operators import LOWER_CUMSUM, LOWER_GELU, LOWER_LAYER_NORM, LOWER_RMS_NORM
from .lower_opset import OPSET
from .lower_qdq import OLD_QUANTIZATION
from .patch_rows import PATCH_ROWS
from .plain_gather import PLAIN_GATHER, PLAIN_GATHER_ND
from .prefix_in_index import PREFIX_IN_INDEX
from .qkv_split import ONE_SPLIT
from .row_products import ROW_PRODUCTS
from .scatter_to_matmul import SCATTER_FREE
from .scores_apart import SCORES_APART
from .static_topk import STATIC_TOPK
from .survivors import NO_SURVIVORS

PASSES: tuple[Pass, ...] = (
    FOLD,  # what the others match is constant by now
    # what pruning needs, in a form that every runtime takes
    NO_EMPTY_PADS,
    PLAIN_ATTENTION,
    SCATTER_FREE,
    STATIC_TOPK,
    PLAIN_GATHER,
    PLAIN_GATHER_ND,
    PREFIX_IN_INDEX,
    # attention as runtimes know it
    ONE_SPLIT,
    DIRECT_TRANSPOSE,
    ONE_SCALE,
    # kernels that TensorRT need not launch
    HEADS_SPLIT,
    SCORES_APART,
    ROW_PRODUCTS,
    # what OpenVINO is slow at
    PATCH_ROWS,
    FIRST_EXTREME,
    FLOAT_COMPARISON,
    # what the target lacks
    LOWER_LAYER_NORM,
    LOWER_RMS_NORM,
    LOWER_CUMSUM,
    LOWER_GELU,
    OLD_QUANTIZATION,
    # where it was asked for
    FUSED_ATTENTION,
    MEAN_BEFORE_TRANSPOSE,
    # what is left
    FOLD_AGAIN,
    NO_SURVIVORS,
    OPSET,
)
