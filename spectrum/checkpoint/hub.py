"""Models of the Hugging Face Hub: found in a folder, in the local cache or on the Hub, at one commit.

Only what huggingface_hub 1 and 2 share is used of it: `model_info`, `list_repo_tree`, `snapshot_download`,
`try_to_load_from_cache`, `hf_hub_url`, `build_hf_headers` and the session.
"""

import glob
import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from spectrum import __version__
from spectrum.checkpoint.answers import Failed, broken, busy, http_error, refused
from spectrum.checkpoint.checkpoint import Checkpoint, open_checkpoint
from spectrum.checkpoint.files import INDEXES, PICKLED, CheckpointFiles, find_files
from spectrum.checkpoint.ranges import Patience, Ranges, RemoteFile
from spectrum.checkpoint.streamed import StreamedSource, find_remote_files
from spectrum.checkpoint.workers import Workers
from spectrum.errors import CheckpointError
from spectrum.untrusted import cut, shown

Fetch = Literal["auto", "stream", "download"]
Notify = Callable[[str], None]

_HUB_ID = re.compile(r"(?P<id>\w[\w.\-]*(/\w[\w.\-]*)?)(@(?P<revision>[^@\s]+))?")
_HUB_URL = re.compile(
    r"https?://(?P<host>[^/]+)/(?P<id>\w[\w.\-]*/\w[\w.\-]*)(/(tree|blob|resolve)/(?P<revision>[^/?#]+)[^?#]*)?/?([?#].*)?"
)
_HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_TOKEN = re.compile(r"[!-~]+")
_WEIGHT_FILES = (".safetensors", ".bin", ".gguf", ".pt", ".pth")
_LIBRARY = "spectrum-snr"
_CONTACT_FAILURES = 4  # at the first contact, after seven seconds: a laptop without a network must not wait for minutes
_CONTACT_TIMEOUT = 30.0  # seconds without a byte
LONGEST_CONTACT = 120.0  # seconds for the whole answer: a server that drips never reaches a timeout between bytes


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
        model: a folder or file; 'owner/name', optionally with '@revision'; or the URL of a model's page on the Hub.
        revision: branch, tag or commit; instead of '@revision'.
        token: for private and gated models; by default the login that huggingface_hub has stored.
        fetch: 'auto' takes a cached snapshot without asking the Hub and otherwise streams; 'stream' and 'download' ask
            the Hub for the commit, and read it by byte range or download it into the cache. Models that have only .bin
            files are downloaded.
        notify: called with a sentence before every wait.

    Raises:
        CheckpointError: not there, not readable, not a checkpoint; the Hub cannot be reached or refuses.
    """
    path, name = local_path(model), _without_address(model)
    named = _HUB_ID.fullmatch(name)
    if path.exists() or named is None or name.endswith(_WEIGHT_FILES):
        if not path.exists():
            raise CheckpointError(
                f"There is no folder {shown(model)}, nor a file of that name. Give a folder with a checkpoint, one "
                ".safetensors or .bin file, or 'owner/name' of a model on the Hub."
            )
        if revision or fetch != "auto":
            raise CheckpointError(
                f"'{model}' is a path: a revision and a way to fetch belong to a model of the Hub, 'owner/name'."
            )
        return open_checkpoint(path)
    return _open_named(named["id"], _one_revision(model, named["revision"], revision), token, fetch, notify)


def local_path(model: str) -> Path:
    """The path that a model's name would be on disk, with '~' for the home folder."""
    try:
        return Path(model).expanduser()
    except RuntimeError:  # '~nobody'
        return Path(model)


def _without_address(model: str) -> str:
    """'owner/name[@revision]' from the URL of a model's page; anything else is returned as it is."""
    found = _HUB_URL.fullmatch(model)
    if found is None or found["host"] not in (*_HUB_HOSTS, urlsplit(os.environ.get("HF_ENDPOINT", "")).netloc):
        return model
    return found["id"] + (f"@{unquote(found['revision'])}" if found["revision"] else "")


def _one_revision(model: str, at: str | None, revision: str | None) -> str | None:
    if at and revision and at != revision:
        raise CheckpointError(f"'{model}' and the revision '{revision}' contradict each other. Give one of them.")
    return at or revision


def _open_named(identity: str, wanted: str | None, token: str | None, fetch: Fetch, notify: Notify) -> Checkpoint:
    _check_names(identity, wanted)
    offline = _offline()
    if fetch == "auto" or offline:
        cached = _cached(identity, wanted)
        if cached is not None:
            return open_checkpoint(cached)
    if offline:
        raise CheckpointError(
            f"There is no folder '{identity}', the Hub's cache has no complete snapshot of a model of that name, and "
            "HF_HUB_OFFLINE is set. Unset it, or download the model first."
        )
    _check_token(token)
    commit, entries = _commit(identity, wanted, token, notify)
    ranges = _ranges(identity, commit, entries, token, notify)
    try:
        files = find_remote_files(identity, commit, ranges)
        if _streamed(files, fetch, notify):
            return Checkpoint(files, StreamedSource(files.folder, files.shards, ranges))
    except BaseException:
        ranges.close()
        raise
    ranges.close()
    return open_checkpoint(_download(identity, wanted, ["config.json", *INDEXES, *files.shards], token))


def _streamed(files: CheckpointFiles, fetch: Fetch, notify: Notify) -> bool:
    """Whether to read by byte range: safetensors, unless a download is wanted."""
    pickled = any(shard.endswith(PICKLED) for shard in files.shards)
    if pickled and fetch == "stream":
        raise CheckpointError(
            f"'{files.id}' has its weights in .bin files, which cannot be streamed. Give --fetch download."
        )
    if pickled and fetch == "auto":
        notify(f"'{files.id}' has its weights in .bin files, which are not streamed; downloading them.")
    return not pickled and fetch != "download"


def _check_names(identity: str, revision: str | None) -> None:
    """Raise CheckpointError for an impossible name or revision, before the Hub is asked for it."""
    from huggingface_hub.errors import HFValidationError  # noqa: PLC0415
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # noqa: PLC0415

    if revision is not None and not (revision and revision.isprintable()):
        raise CheckpointError(f"{shown(revision)} is not a revision. Give a branch, a tag or a commit.")
    try:
        validate_repo_id(identity)
    except HFValidationError as error:
        raise CheckpointError(
            f"There is no folder '{identity}', and it is not a model's name on the Hub: {cut(str(error))}"
        ) from error


def _check_token(token: str | None) -> None:
    """Raise CheckpointError if no header can hold the token: the HTTP client's own error would print it."""
    from huggingface_hub import get_token  # noqa: PLC0415

    used = get_token() if token is None else token
    if used is not None and not _TOKEN.fullmatch(used):
        raise CheckpointError(
            "The token is empty, or contains blanks or other characters that no token contains. Copy it again, or "
            "leave --token out and log in once with 'hf auth login'."
        )


def _offline() -> bool:
    from huggingface_hub import constants  # noqa: PLC0415  takes a quarter of a second, not needed for local checkpoints

    return bool(constants.HF_HUB_OFFLINE)


def _cached(identity: str, revision: str | None) -> Path | None:
    """Folder of a snapshot in the cache that has all weights and the config.json; None if there is none."""
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

    def _ask() -> tuple[str, list[Any]]:
        commit = api.model_info(identity, revision=revision, timeout=_CONTACT_TIMEOUT).sha
        return str(commit), list(api.list_repo_tree(identity, recursive=True, revision=commit))

    while True:
        try:
            return _within(LONGEST_CONTACT, _ask, place)
        except HfHubHTTPError as error:
            failure = busy(error.response)
            if failure is None:
                raise _not_there(identity, refused(error.response, place)) from error
        except http_error() as error:
            failed = broken(error, place)
            if not isinstance(failed, Failed):
                raise failed from error
            failure = Failed(f"'{constants.ENDPOINT}' cannot be reached ({cut(str(error))})")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(
                f"'{constants.ENDPOINT}' does not answer as the Hub does when asked for '{place}'. "
                "Check HF_ENDPOINT, and whether the network asks for a login of its own."
            ) from error
        try:
            patience.after(failure)
        except CheckpointError as error:
            raise _not_there(identity, error) from error


def _not_there(identity: str, error: CheckpointError) -> CheckpointError:
    """The error of the Hub, after the fact that the user may be looking for: no such folder."""
    return CheckpointError(f"There is no folder '{identity}', and on the Hub {error}")


def _within(seconds: float, call: Callable[[], tuple[str, list[Any]]], place: str) -> tuple[str, list[Any]]:
    """The result of a call; CheckpointError if it takes longer than that, whatever it is waiting for."""
    answers: list[tuple[str, list[Any]]] = []
    worker = Workers(1, "spectrum-contact")
    try:
        worker.submit(lambda: answers.append(call())).result(seconds)
    except FutureTimeoutError as error:
        raise CheckpointError(
            f"The Hub did not finish its answer about '{place}' within {seconds:.0f} seconds. "
            "Check the network, or try again later."
        ) from error
    finally:
        worker.close()
    return answers[0]


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
        if hasattr(entry, "blob_id")  # a folder does not have it
    }
    return Ranges(files, headers, notify=notify)


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
    except (http_error(), OSError) as error:  # the latter if the connection is lost, or a file has another size
        raise CheckpointError(
            f"'{identity}' was not downloaded: {cut(str(error))}. Run the command again; it carries on."
        ) from error
    return Path(folder)
