"""Options that `spectrum scan` had in version 0.1.0, and what does their work now."""

import shlex
from collections.abc import Sequence

_SELECT, _IMPORT = "spectrum select SCAN", "spectrum import URL"
_FLAGS = ("--whole-layers", "--rank-pattern", "--qlora")
_TO_SELECT = (
    "--count", "--min-snr", "--max-params", "--trainable", "--per-type", "--score", "--strategy", "--seed",
    "--lora-rank", "--lora-alpha", *_FLAGS,
)  # fmt: skip


def moved(option: str, words: Sequence[str]) -> str | None:
    """What to run in place of `scan` with an option; None if it never had the option.

    Args:
        option: that `scan` does not know.
        words: the command line.
    """
    gone = f"scan has no {option} any more."
    if option in _TO_SELECT:
        return f"{gone} Run: {_SELECT} {shlex.join(_given(option, words))}"
    if option in ("--published", "--published-url"):
        return f"{gone} Run: {_IMPORT} with the address of the result file."
    if option == "--names":
        return f"{gone} A folder without its config.json keeps the names of the checkpoint."
    return None


def _given(option: str, words: Sequence[str]) -> Sequence[str]:
    """The option with its value, as on the command line."""
    index = next((at for at, word in enumerate(words) if word.partition("=")[0] == option), None)
    if index is None:
        return [option]
    return words[index : index + 1] if option in _FLAGS or "=" in words[index] else words[index : index + 2]
