"""What a budget says to its method, validated: parameters, stage rows, and whether the method can fill every stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from ...core.errors import InputError
from ..budget import BlockTokens, Budget, first_problem
from . import get_method

if TYPE_CHECKING:
    from .base import Method


def parse_parameters(method: Method, data: Mapping[str, Any], where: str = "parameters") -> Method.Parameters:
    """Validate a method's parameters.

    Raises:
        InputError: with the key below `where`, what was found and what is allowed.
    """
    return _parsed(method.Parameters, data, where)


def parameters_of(budget: Budget, where: str = "parameters") -> Method.Parameters:
    """The parameters of a budget's method; what an older budget does not name is as it was then.

    Raises:
        InputError: with the key below `where`, what was found and what is allowed.
    """
    method = get_method(budget.method)
    return parse_parameters(method, method.before.get(budget.format, {}) | budget.parameters, where)


def parse_stage(method: Method, row: BlockTokens) -> Method.StageOptions:
    """Validate a stage row's own keys.

    Raises:
        InputError: naming the row and the key.
    """
    return _parsed(method.StageOptions, row.options, f"blocks[{row.block}]")


def check_budget(method: Method, budget: Budget) -> None:
    """Refuse what a budget says to its method, or asks of it, and it cannot do.

    Raises:
        InputError: naming the key or the row.
    """
    parameters = parameters_of(budget)
    for row in budget.stages:
        options = parse_stage(method, row)
        if row.after > budget.prefix_tokens:  # nothing is chosen where no patch stays
            where = f"blocks[{row.block}]"
            method.check_stage(row.before, row.after, budget.prefix_tokens, options, parameters, where)


def _parsed(model: type[BaseModel], data: Mapping[str, Any], where: str) -> Any:
    try:
        return model.model_validate(dict(data))
    except ValidationError as error:
        allowed = ", ".join(model.model_fields) or "none"
        raise InputError(f"{where}.{first_problem(error)} (known keys: {allowed})") from error
