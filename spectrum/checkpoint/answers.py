"""Which answers of a Hub are worth another try, and the error for those that are not."""

import re
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

from spectrum.errors import CheckpointError
from spectrum.untrusted import cut

_NUMBER = re.compile(r"[0-9]{1,9}")
_HOPELESS = ("TooManyRedirects", "UnsupportedProtocol", "InvalidURL")  # errors of httpx, by name
_BUSY = (408, 425, 429, 500, 502, 503, 504)


class Failed(Exception):  # noqa: N818  a message between functions of this package, never the user's error
    """A try that may succeed later; `wait` is how many seconds the server asks for, or None."""

    def __init__(self, what: str, *, wait: float | None = None) -> None:
        super().__init__(what)
        self.wait = wait


def busy(response: Any) -> Failed | None:
    """The failure of an answer that may be different later; None if it will stay the same."""
    if response.status_code not in _BUSY:
        return None
    return Failed(f"{host(response)} answered {response.status_code}", wait=_retry_after(response.headers))


def refused(response: Any, place: str) -> CheckpointError:
    """The error for an answer that will not change by asking again.

    Args:
        response: of the Hub, with the error code that it puts beside the status.
        place: what was asked for.
    """
    status, code = response.status_code, response.headers.get("X-Error-Code")
    # No token is sent along a redirect, so the token is not at fault there.
    by_status = _REDIRECTED if response.history else _REASONS.get(status)
    reason = _REASONS.get(code) or by_status or "Check the name, and HF_ENDPOINT if it is set."
    return CheckpointError(f"'{place}' cannot be had: {host(response)} answered {status}. {reason}")


_LOGIN = "pass --token, or log in once with 'hf auth login'"
_REDIRECTED = "The Hub has just redirected there: look for a proxy or firewall between, or try again later."
_REASONS: dict[str | int | None, str] = {
    "GatedRepo": f"Its owner wants conditions accepted: do so on the model's page, then {_LOGIN}.",
    "RepoNotFound": f"There is no such model, or it is private. Check the name; for a private one {_LOGIN}.",
    "RevisionNotFound": "The model has no such revision. Give a branch, a tag or a commit that it has.",
    "EntryNotFound": "The model has no such file at this revision.",
    401: f"It is private or gated, or the token is not valid: {_LOGIN}.",
    403: f"The token does not open it: {_LOGIN}, with a token that may read it.",
}


def broken(error: Exception, place: str) -> Exception:
    """What an error of the HTTP client amounts to: `Failed` if another try may succeed, else a CheckpointError."""
    reason = cut(str(error)) or type(error).__name__
    if type(error).__name__ not in _HOPELESS:
        return Failed(f"the connection broke off ({reason})")
    return CheckpointError(
        f"'{place}' cannot be read: it redirects in a loop or to an address that is not of the web ({reason}). "
        "Look for a proxy or firewall between, or try again later."
    )


def host(response: Any) -> str:
    """The server that answered, quoted."""
    return f"'{response.url.host}'"


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, as a number or until a date (RFC 9110, section 10.2.3); None if it is missing or senseless.

    No time at all, or a date that has passed (on a clock that is fast), would spend all tries in a moment.
    """
    text = headers.get("Retry-After", "").strip()
    try:
        seconds = float(text) if _NUMBER.fullmatch(text) else _until(text)
    except (TypeError, ValueError):
        return None
    return seconds if seconds > 0 else None


def _until(date: str) -> float:
    """Seconds until a date of HTTP, always in GMT.

    Raises:
        TypeError, ValueError: it is not a date.
    """
    moment = parsedate_to_datetime(date)
    return (moment.replace(tzinfo=moment.tzinfo or timezone.utc) - datetime.now(timezone.utc)).total_seconds()


def http_error() -> type[Exception]:
    """Base of the session's errors: httpx's with huggingface_hub 1, httpx2's with 2."""
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

    return next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")
