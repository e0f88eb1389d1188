"""Keep transformers off the network while it builds a model from somebody's config.json.

Some config classes look up a repository that the config names (`backbone` of DETR), with the user's token.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_LOCK = threading.RLock()  # huggingface_hub has one switch for the whole process
_THREAD = threading.local()
_NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.sendmsg")


class OfflineError(Exception):
    """Something tried to reach the network inside `offline`."""


@contextmanager
def offline() -> Iterator[None]:
    """Refuse every request to the Hub, and every other connection that this thread opens.

    huggingface_hub's switch covers connections that are already open; the audit hook covers other libraries. Setting
    an environment variable would be too late: huggingface_hub reads it on import.
    """
    from huggingface_hub import constants  # noqa: PLC0415 - costs time

    _install_hook()
    with _LOCK:
        before = constants.HF_HUB_OFFLINE, getattr(_THREAD, "offline", False)
        constants.HF_HUB_OFFLINE = _THREAD.offline = True
        try:
            yield
        finally:
            constants.HF_HUB_OFFLINE, _THREAD.offline = before


def asked_for_network(error: BaseException | None) -> bool:
    """Whether an exception, or one that it was raised from, is the refusal of `offline`."""
    from huggingface_hub.errors import OfflineModeIsEnabled  # noqa: PLC0415

    while error is not None:
        if isinstance(error, OfflineError | OfflineModeIsEnabled):
            return True
        error = error.__cause__ or error.__context__
    return False


@cache  # Python cannot remove an audit hook
def _install_hook() -> None:
    sys.addaudithook(_refuse)


def _refuse(event: str, _arguments: object) -> None:
    if event in _NETWORK and getattr(_THREAD, "offline", False):
        raise OfflineError("no connection is opened while a model is built from config.json")
