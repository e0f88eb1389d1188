"""Singular values, their error estimate, and the scores. Reads no files and knows no names."""
