"""A result file from the web, as text."""

import urllib.error
import urllib.request
from http.client import HTTPException, HTTPResponse
from time import monotonic

from spectrum.errors import SpectrumError, one_line

MAX_BYTES = 64 * 2**20  # the largest published file, of 1,624 modules, has 0.2 MB
TIMEOUT = 30.0  # seconds without a byte
LONGEST = 120.0  # seconds for the whole file
PIECE_BYTES = 2**16


def download(url: str) -> str:
    """The text at an http or https address.

    Raises:
        SpectrumError: no such file, no connection, not text, a slow server, or more bytes than a result file has.
    """
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:  # noqa: S310  the caller checked the scheme
            content = _read(response)
        text = content.decode()
    except urllib.error.HTTPError as error:
        error.close()
        reason = "there is no such file" if error.code == 404 else f"the server answered {error.code}"
        raise SpectrumError(f"'{url}' cannot be read: {reason}.") from error
    except (OSError, HTTPException, ValueError) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        raise SpectrumError(f"'{url}' cannot be read: {one_line(str(cause))}.") from error
    if len(content) > MAX_BYTES:
        raise SpectrumError(f"'{url}' has more than {MAX_BYTES} bytes, which no result file has.")
    return text


def _read(response: HTTPResponse) -> bytes:
    """At most MAX_BYTES + 1 bytes of an answer.

    Raises:
        TimeoutError: it takes longer than LONGEST; a server that sends a byte now and then never reaches TIMEOUT.
    """
    content, until = bytearray(), monotonic() + LONGEST
    while len(content) <= MAX_BYTES and (piece := response.read1(PIECE_BYTES)):
        content += piece
        if monotonic() > until:
            raise TimeoutError(f"it was not complete after {LONGEST:.0f} seconds")
    return bytes(content[: MAX_BYTES + 1])
