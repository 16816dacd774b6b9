"""From images to widths: which heads and neurons stay."""
