"""Recipes that ship, their schema, and the pipeline that strings the stages."""
