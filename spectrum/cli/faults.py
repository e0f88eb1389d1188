"""Exceptions that stand for a fault of the machine or the installation, not for a bug."""

# Packages that commands import only when they need them -> what to install.
_PACKAGES = {
    "torch": "torch>=2.10",
    "transformers": "transformers>=5.0",
    "huggingface_hub": "huggingface_hub>=1.0",
    "safetensors": "safetensors",
    "matplotlib": "matplotlib",
}
# What Python, the loader of shared libraries, torch and oneDNN say when the system refuses memory or a thread.
_NO_MEMORY = (
    "can't start new thread",
    "could not create a primitive",
    "bad_alloc",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "failed to map segment",
    "error return without exception set",
)
NO_MEMORY = "There is not enough memory, or no thread can be started. Free some, or use a machine with more."


def fault_line(error: BaseException | None) -> str | None:
    """The line for the user if an exception, or one that led to it, is a known fault; None if it may be a bug."""
    while error is not None:
        text = str(error)
        missing = _PACKAGES.get((error.name or "").partition(".")[0]) if isinstance(error, ImportError) else None
        if isinstance(error, ModuleNotFoundError) and missing:
            return f"This needs {(error.name or '').partition('.')[0]}: pip install '{missing}'."
        if isinstance(error, MemoryError) or any(words in text.lower() for words in _NO_MEMORY):
            return NO_MEMORY
        if text.startswith("Symlink loop"):
            return f"{text}: a path leads back to itself. Give another one."
        error = error.__cause__ or error.__context__
    return None
