"""Looking at a model and images, and deciding a budget."""
