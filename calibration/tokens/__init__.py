"""From images to a token budget."""
