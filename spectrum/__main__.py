"""`python -m spectrum`, as torchrun starts it."""

from spectrum.cli import main

main()
