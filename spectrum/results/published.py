"""Result files that the authors of the paper published, fetched by the name of a model."""

import re
import tempfile
import urllib.error
import urllib.request
from dataclasses import replace
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from time import monotonic
from urllib.parse import quote

from spectrum.errors import SpectrumError, one_line
from spectrum.results.legacy import import_scan
from spectrum.results.scan import Scan

PUBLISHED_URL = "https://raw.githubusercontent.com/QuixiAI/spectrum/main/model_snr_results"
MAX_BYTES = 64 * 2**20  # the largest, of 1,624 experts and layers, has 0.2 MB
TIMEOUT = 30.0  # seconds without a byte
LONGEST = 120.0  # seconds for the whole file
PIECE_BYTES = 2**16


def fetch_published(model: str, base_url: str = PUBLISHED_URL) -> Scan:
    """The published scores of a model; the address is recorded as their origin.

    Args:
        model: 'owner/name'.
        base_url: folder of the result files, http or https.

    Raises:
        SpectrumError: no file of this model, no connection, or more bytes than a result file has.
        ScanFileError: it is not a result file.
    """
    if not re.fullmatch(r"[\w.\-]+/[\w.\-]+", model) or model.startswith("."):
        raise SpectrumError(f"'{model}' is not a name of a model: published scores are found by 'owner/name'.")
    name = f"snr_results_{model.replace('/', '-').replace('_', '-')}.json"
    url = f"{base_url.rstrip('/')}/{quote(name)}"
    if not url.startswith(("https://", "http://")):
        raise SpectrumError(f"'{base_url}' is not a web address: give one that begins with https://.")
    content = _fetch(url, model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        scan = import_scan(path, model_id=model)
    return replace(scan, settings=replace(scan.settings, origin=url))


def _read(response: HTTPResponse) -> bytes:
    """At most MAX_BYTES + 1 bytes of an answer.

    Raises:
        TimeoutError: it takes longer than LONGEST, as from a server that drips and never reaches the other timeout.
    """
    content, until = bytearray(), monotonic() + LONGEST
    while len(content) <= MAX_BYTES and (piece := response.read1(PIECE_BYTES)):
        content += piece
        if monotonic() > until:
            raise TimeoutError(f"it was not complete after {LONGEST:.0f} seconds")
    return bytes(content[: MAX_BYTES + 1])


def _fetch(url: str, model: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:  # noqa: S310  checked above
            content = _read(response)
    except urllib.error.HTTPError as error:
        error.close()
        reason = "There is no such file" if error.code == 404 else f"The server answered {error.code}"
        raise SpectrumError(
            f"No published scores of '{model}' at '{url}': {reason}. Scan the model instead."
        ) from error
    except (OSError, HTTPException, ValueError) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        raise SpectrumError(f"'{url}' cannot be read: {one_line(str(cause))}.") from error
    if len(content) > MAX_BYTES:
        raise SpectrumError(f"'{url}' has more than {MAX_BYTES} bytes, which no result file has.")
    return content
