"""Models of the Hugging Face Hub: found in a folder, in the local cache or on the Hub, at one commit.

Only what huggingface_hub 1 and 2 share is used of it: `model_info`, `list_repo_tree`, `snapshot_download`,
`try_to_load_from_cache`, `hf_hub_url`, `build_hf_headers` and the session.
"""

import glob
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from spectrum import __version__
from spectrum.checkpoint.answers import Failed, busy, http_error, refused
from spectrum.checkpoint.files import INDEXES, find_files
from spectrum.checkpoint.local import Checkpoint
from spectrum.checkpoint.opening import folded, open_checkpoint
from spectrum.checkpoint.ranges import Patience, Ranges, RemoteFile
from spectrum.checkpoint.streamed import StreamedCheckpoint, find_remote_files
from spectrum.errors import CheckpointError, one_line
from spectrum.untrusted import shown

Fetch = Literal["auto", "stream", "download"]
Notify = Callable[[str], None]

_HUB_ID = re.compile(r"(?P<id>\w[\w.\-]*(/\w[\w.\-]*)?)(@(?P<revision>[^@\s]+))?")
_TOKEN = re.compile(r"[!-~]+")
_WEIGHT_FILES = (".safetensors", ".bin", ".gguf", ".pt", ".pth")
_LIBRARY = "spectrum-snr"
_CONTACT_FAILURES = 4  # at the first contact: seven seconds, for a laptop without a network need not wait for minutes
_CONTACT_TIMEOUT = 30.0  # seconds


def open_model(
    model: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    fetch: Fetch = "auto",
    notify: Notify = lambda _message: None,
) -> Checkpoint:
    """Open a checkpoint wherever it is: a path, a complete snapshot in the Hub's cache, or the Hub.

    Args:
        model: a folder or file, or 'owner/name', with '@revision' where it is not the default branch.
        revision: branch, tag or commit; in place of '@revision'.
        token: for private and gated models; by default the login that huggingface_hub has stored.
        fetch: 'auto' takes a cached snapshot without asking the Hub and else streams; 'stream' and 'download' ask the
            Hub for the commit, and read it by byte range or download it into the cache.
        notify: told in a sentence of what is waited for.

    Raises:
        CheckpointError: not there, not readable, not a checkpoint; the Hub cannot be reached or refuses.
    """
    named = _HUB_ID.fullmatch(model)
    if Path(model).exists() or named is None or model.endswith(_WEIGHT_FILES):
        if revision or fetch != "auto":
            raise CheckpointError(
                f"'{model}' is a path: a revision and a way to fetch belong to a model of the Hub, 'owner/name'."
            )
        return open_checkpoint(model)
    identity, at = named["id"], named["revision"]
    if at and revision and at != revision:
        raise CheckpointError(f"'{model}' and the revision '{revision}' contradict each other. Give one of them.")
    wanted = at or revision
    _check_names(identity, wanted)
    offline = _offline()
    if fetch == "auto" or offline:
        cached = _cached(identity, wanted)
        if cached is not None:
            return open_checkpoint(cached)
    if offline:
        raise CheckpointError(
            f"'{model}' is no folder here, the Hub's cache has no complete snapshot of it, and HF_HUB_OFFLINE is set. "
            "Unset it, or download the model first."
        )
    _check_token(token)
    commit, entries = _commit(identity, wanted, token, notify)
    ranges = _ranges(identity, commit, entries, token, notify)
    if fetch != "download":
        return folded(_stream(identity, commit, ranges))
    with closing(ranges):
        files = find_remote_files(identity, commit, ranges)
    return open_checkpoint(_download(identity, wanted, ["config.json", *INDEXES, *files.shards], token))


def _check_names(identity: str, revision: str | None) -> None:
    """Raise CheckpointError for what can be no name, before the Hub is asked for it."""
    from huggingface_hub.errors import HFValidationError  # noqa: PLC0415
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # noqa: PLC0415

    if revision is not None and not (revision and revision.isprintable()):
        raise CheckpointError(f"{shown(revision)} is no revision. Give a branch, a tag or a commit.")
    try:
        validate_repo_id(identity)
    except HFValidationError as error:
        raise CheckpointError(
            f"'{identity}' is no folder here, and no name of a model: {one_line(str(error))}"
        ) from error


def _check_token(token: str | None) -> None:
    """Raise CheckpointError for a token that no header can hold: the HTTP client's own error would print it."""
    from huggingface_hub import get_token  # noqa: PLC0415

    used = get_token() if token is None else token
    if used is not None and not _TOKEN.fullmatch(used):
        raise CheckpointError(
            "The token is empty, or has blanks or other characters in it that no token has. Copy it again, or leave "
            "--token away and log in once with 'hf auth login'."
        )


def _offline() -> bool:
    from huggingface_hub import constants  # noqa: PLC0415  a quarter of a second that local checkpoints need not wait

    return bool(constants.HF_HUB_OFFLINE)


def _cached(identity: str, revision: str | None) -> Path | None:
    """Folder of a snapshot in the cache that has all weights and the config.json; None where there is none."""
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415

    config = try_to_load_from_cache(identity, "config.json", revision=revision)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    try:
        find_files(folder)
    except CheckpointError:  # incomplete; the Hub has the rest
        return None
    return folder


def _commit(identity: str, revision: str | None, token: str | None, notify: Notify) -> tuple[str, list[Any]]:
    """The commit that a revision names, and every file of it."""
    from huggingface_hub import HfApi, constants  # noqa: PLC0415
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

    api = HfApi(token=token, library_name=_LIBRARY, library_version=__version__)
    place = f"{identity}@{revision}" if revision else identity
    patience = Patience(place, failures=_CONTACT_FAILURES, notify=notify)
    while True:
        try:
            commit = api.model_info(identity, revision=revision, timeout=_CONTACT_TIMEOUT).sha
            return str(commit), list(api.list_repo_tree(identity, recursive=True, revision=commit))
        except HfHubHTTPError as error:
            failure = busy(error.response)
            if failure is None:
                raise refused(error.response, place) from error
        except http_error() as error:
            failure = Failed(f"'{constants.ENDPOINT}' cannot be reached ({one_line(str(error))})")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"'{constants.ENDPOINT}' does not answer as the Hub does when asked for '{place}'. "
                "Check HF_ENDPOINT, and whether the network wants a login of its own."
            ) from error
        patience.after(failure)


def _ranges(identity: str, commit: str, entries: Iterable[Any], token: str | None, notify: Notify) -> Ranges:
    """The model's files at its commit, ready to be read."""
    from huggingface_hub import hf_hub_url  # noqa: PLC0415
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # noqa: PLC0415

    headers = build_hf_headers(token=token, library_name=_LIBRARY, library_version=__version__)
    files = {
        entry.path: RemoteFile(
            url=hf_hub_url(identity, entry.path, revision=commit),
            size=entry.size,
            blob=entry.lfs.sha256 if entry.lfs else entry.blob_id,
        )
        for entry in entries
        if hasattr(entry, "blob_id")  # a folder has none
    }
    return Ranges(files, headers, notify=notify)


def _stream(identity: str, commit: str, ranges: Ranges) -> Checkpoint:
    try:
        return StreamedCheckpoint(find_remote_files(identity, commit, ranges), ranges)
    except BaseException:
        ranges.close()
        raise


def _download(identity: str, revision: str | None, names: Sequence[str], token: str | None) -> Path:
    """Download files into the Hub's cache; the folder of the snapshot."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    try:
        folder = snapshot_download(
            identity,
            revision=revision,  # by its name, so that the cache notes which commit it was
            token=token,
            allow_patterns=[glob.escape(name) for name in names],
            library_name=_LIBRARY,
            library_version=__version__,
        )
    except (http_error(), OSError) as error:  # the latter where the connection is lost, or a file has another size
        raise CheckpointError(
            f"'{identity}' was not downloaded: {one_line(str(error))}. Run the command again; it carries on."
        ) from error
    return Path(folder)
