"""What graphs, engines and models are asked: operators, lint, kernels, what timm has."""
