"""A graph fresh from PyTorch's exporter without what no graph needs: constants computed, plain patterns made one."""

from __future__ import annotations

import sys

import onnx_ir
from onnx_ir.passes import common
from onnxscript.optimizer import fold_constants_ir
from onnxscript.rewriter import RewritePass
from onnxscript.rewriter.rules import common as rules

# Of onnxscript's own 46 those that traced models have a use for: each is tried at every node, and all of them take a
# tenth of an export.
_RULES = (
    *rules.mul_by_1_rule.commute(),
    *rules.add_0_rule.commute(),
    rules.cast_cast_rule,
    rules.no_op_cast_rule,
    rules.no_op_expand_rule,
    rules.no_op_transpose_rule,
    rules.transpose_transpose_rule,
    rules.reshape_reshape_rule,
    rules.materialize_reshape_shape_rule,
    rules.unsqueeze_unsqueeze_rule,
    rules.fuse_batchnorm_into_conv_rule,
    rules.remove_optional_bias_from_conv_rule,
    rules.remove_optional_bias_from_gemm_rule,
)


def simplify(model: onnx_ir.Model) -> None:
    """What onnxscript's `optimize_ir` does, in place, with those rules and one round of them instead of two.

    A second round finds nothing in our graphs but an Identity that the first one leaves.
    """
    common.InlinePass()(model)
    fold_constants_ir(model, onnx_shape_inference=True)
    onnx_ir.passes.Sequential(
        RewritePass(_RULES),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),
        common.RemoveUnusedOpsetsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    )(model)
    fold_constants_ir(model, output_size_limit=sys.maxsize, should_fold=_cuts_weight)
    common.IdentityEliminationPass()(model)


def _cuts_weight(node: onnx_ir.Node) -> bool:
    """Whether a node cuts a part out of a weight, or turns it, which makes a weight of its own, however large."""
    data = node.inputs[0] if node.op_type in ("Slice", "Transpose") else None
    return data is not None and data.is_initializer()
