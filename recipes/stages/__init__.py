"""The stages between a recipe and a bundle, a file for each, and what several of them share."""
