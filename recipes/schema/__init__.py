"""A recipe: its sections, how it is read and written, and what it says of files."""
