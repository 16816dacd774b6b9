"""The sections of a recipe, each a model of pydantic."""
