"""From a recipe to a published bundle, stage by stage."""
