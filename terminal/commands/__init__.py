"""The commands of `vitrim`, by what they work on."""
