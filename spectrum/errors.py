"""The errors a user can cause. Everything else is a bug and keeps its traceback."""


class SpectrumError(Exception):
    """A clear error: what is wrong with which object, and what to do. The command line prints it as one line."""


class CheckpointError(SpectrumError):
    """A checkpoint that cannot be read, or that contradicts itself."""


class DecompositionError(SpectrumError):
    """A matrix whose singular values this machine could not compute."""


class ScanFileError(SpectrumError):
    """A scan file or spectra file that is not what it should be."""


class SelectionError(SpectrumError):
    """A selection that cannot be made, or that a target cannot express."""


def one_line(text: str) -> str:
    """Text that cannot move a terminal's cursor or start a second line, whatever names it quotes."""
    return "".join(character if character.isprintable() else "?" for character in " ".join(text.split()))
