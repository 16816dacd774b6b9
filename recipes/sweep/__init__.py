"""Many recipes at once: methods x budgets x precisions, and which of them are worth having."""
