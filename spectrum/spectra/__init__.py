"""Pure numerics: Gram matrix, singular values, error estimate, score. Knows no file and no name."""
