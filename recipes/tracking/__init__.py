"""Exports in MLflow or Weights & Biases: recipes as parameters, what a bundle found as metrics. Behind a listener."""
