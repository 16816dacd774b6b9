"""Images as sources: photos, arrays, generated ones."""
