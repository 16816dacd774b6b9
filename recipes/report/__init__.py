"""A report to look at: one offline page of a bundle's photos, answers, times and proofs. Torch-free."""
