"""Files mutated by chance and by design: a right result or one clear line, and never anything else.

Every mutated file is given to the command that reads it. A scan that succeeds must have the spectra that NumPy finds
in what the safetensors library, or torch, reads from the same mutated file.
"""

import contextlib
import json
import shutil
import signal
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import llama_config, tiny_llama, write_checkpoint
from safetensors.torch import load

from spectrum.results import read_scan, read_spectra

SECONDS = 20  # for one case; most take a tenth of a second
HOSTILE = [
    None, True, -1, 0, 1, 3, 2**31, 2**63, 10**400, -(10**9), 0.5, 1e308, float("nan"), float("inf"), "", "x", "../x",
    "\ud800", "a\nb\x1b[31m", "y" * 20_000, [], [1], {}, {"a": 1}, [[[[]]]],
]  # fmt: skip


class _TooLongError(BaseException):
    """Beyond every handler."""


@contextlib.contextmanager
def _limited():
    def stop(*_):
        raise _TooLongError

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


# --- mutations ---


def _bytes(content: bytes, random: np.random.Generator, *, first: int | None = None) -> bytes:
    """A flipped bit, other bytes, a cut, an insertion, a deletion, a doubling or zeros; early or anywhere."""
    end = min(len(content), first or len(content))
    at = int(random.integers(end))
    length = int(random.integers(1, 9))
    piece = random.bytes(length)
    return [
        lambda: content[:at] + bytes([content[at] ^ 1 << int(random.integers(8))]) + content[at + 1 :],
        lambda: content[:at] + piece + content[at + length :],
        lambda: content[:at],
        lambda: content[:at] + piece + content[at:],
        lambda: content[:at] + content[at + length :],
        lambda: content[:at] + content[at : at + length] + content[at:],
        lambda: content[:at] + bytes(length) + content[at + length :],
    ][int(random.integers(7))]()


def _json(content: bytes, random: np.random.Generator) -> bytes:
    """One value replaced, removed, doubled or swapped with its neighbour, or one name replaced or doubled."""
    root = json.loads(content)
    places = list(_places(root))
    parent, key = places[int(random.integers(len(places)))]
    other = HOSTILE[int(random.integers(len(HOSTILE)))]
    action = int(random.integers(6))
    if action < 2:
        parent[key] = other
    elif action == 2:
        del parent[key]
    elif action == 3 and isinstance(parent, dict):
        parent[str(other)] = parent.pop(key)
    elif action == 4 and type(parent[key]) is int:
        parent[key] += int(random.integers(-3, 4))
    else:
        sibling, name = places[int(random.integers(len(places)))]
        parent[key], sibling[name] = sibling[name], parent[key]
    try:
        return json.dumps(root).encode()
    except ValueError:  # swapped with what it stands in
        return content[: len(content) // 2]


def _places(value):
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        yield value, key
        yield from _places(entry)


def _header(content: bytes, random: np.random.Generator) -> bytes:
    """The JSON of a safetensors header mutated, its length right again."""
    length = int.from_bytes(content[:8], "little")
    header = _json(content[8 : 8 + length], random)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def _safetensors(content: bytes, random: np.random.Generator) -> bytes:
    choice = int(random.integers(4))
    if choice == 0:
        return _bytes(content, random)
    return _header(content, random) if choice < 3 else _bytes(content, random, first=2000)


def _text(content: bytes, random: np.random.Generator) -> bytes:
    return _json(content, random) if random.integers(3) else _bytes(content, random)


def _pickled(content: bytes, random: np.random.Generator) -> bytes:
    """Mostly in the pickle, at the beginning, or in the directory, at the end."""
    choice = int(random.integers(4))
    if choice == 0:
        return _bytes(content, random)
    if choice == 1:
        return content[:-3000] + _bytes(content[-3000:], random)
    return _bytes(content, random, first=1500)


# --- what must hold ---


def _check_failure(code, out, err, folder):
    """One line that says what is wrong, no result, no half file."""
    lines = err.splitlines()
    assert code == 1, (code, err)
    assert [line for line in lines if line.startswith("spectrum: ")] == lines[-1:], err
    assert len(lines[-1]) < 3000
    assert "Traceback" not in err
    if folder.exists():
        assert {path.suffix for path in folder.iterdir()} <= {".jsonl", ".old", ".lock"}, list(folder.iterdir())


def _check_spectra(folder, weights):
    """The spectra of a scan are those of the weights; a scan of other names is measured by its tensors."""
    (path,) = folder.glob("*.spectra.safetensors")
    scan = read_scan(folder / path.name.replace(".spectra.safetensors", ".json"))
    spectra = read_spectra(path, fingerprint=scan.model.fingerprint)
    assert spectra
    assert not list(folder.glob("*.tmp"))
    for item in scan.parameters:
        (tensor,) = item.tensors
        expected = np.linalg.svd(weights[tensor].double().numpy(), compute_uv=False)
        np.testing.assert_allclose(spectra[item.name], expected, rtol=1e-4, atol=1e-5 * expected[0])


def _outcomes(count: int, seed: int, case: Callable[[np.random.Generator, int], int]) -> tuple[int, int]:
    """Run cases, each with chance of its own; (successes, failures). What is wrong is told by its number."""
    codes, wrong = [], []
    for number in range(count):
        try:
            with _limited():
                codes.append(case(np.random.default_rng([seed, number]), number))
        except (Exception, _TooLongError) as error:  # noqa: BLE001, PERF203  every case is run before any is told
            wrong.append(f"case {number}: {type(error).__name__}: {str(error)[:600]}")
    assert wrong == []
    return codes.count(0), codes.count(1)


@pytest.fixture
def base(tmp_path):
    """A Llama of one layer, in two shards, and its tensors."""
    tensors = tiny_llama(layers=1)
    names = sorted(tensors)
    shards = {"a.safetensors": names[:4], "b.safetensors": names[4:]}
    return write_checkpoint(
        tmp_path / "base",
        {shard: {name: tensors[name] for name in members} for shard, members in shards.items()},
        config=llama_config(1),
    )


def _scan_of(run, source, name, content, *, number, weights):
    """Scan a copy of a checkpoint in which one file has another content."""
    folder = Path(f"case-{number}", source.name)
    shutil.copytree(source, folder)
    (folder / name).write_bytes(content)
    out = Path(f"out-{number}")
    code, _, err = run("scan", "--model", folder, "--out", out, "--embeddings", "freeze", "--quiet")
    if code == 0:
        _check_spectra(out, weights(folder))
    else:
        _check_failure(code, "", err, out)
    return code


def _from_safetensors(folder):
    """What the library reads; where it refuses a file, so must we."""
    loaded = {}
    for path in sorted(folder.glob("*.safetensors")):
        loaded |= load(path.read_bytes())
    return loaded


def test_safetensors(base, run):
    """Headers and data of a shard."""
    content = (base / "b.safetensors").read_bytes()
    good, bad = _outcomes(
        90,
        1,
        lambda random, number: _scan_of(
            run, base, "b.safetensors", _safetensors(content, random), number=number, weights=_from_safetensors
        ),
    )
    assert good > 10
    assert bad > 50


@pytest.mark.parametrize(("name", "count"), [("config.json", 60), ("model.safetensors.index.json", 30)])
def test_json_beside_the_weights(base, run, name, count):
    """The config and the index: the weights are the same, so every scan that succeeds has their spectra."""
    content = (base / name).read_bytes()
    good, bad = _outcomes(
        count,
        2,
        lambda random, number: _scan_of(
            run, base, name, _text(content, random), number=number, weights=_from_safetensors
        ),
    )
    assert good > 5 or name != "config.json"
    assert bad > 5


def _from_torch(folder):
    """What torch reads; where it refuses a file that is read here, the weights must be the old ones."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(folder / "pytorch_model.bin", weights_only=True)
    except RuntimeError:
        return tiny_llama(layers=1)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_bin(tmp_path, run, zipped):
    """Pickle, directory and data of a .bin."""
    source = tmp_path / "base"
    source.mkdir()
    (source / "config.json").write_text(json.dumps(llama_config(1)))
    torch.save(tiny_llama(layers=1), source / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    content = (source / "pytorch_model.bin").read_bytes()
    good, bad = _outcomes(
        40,
        3,
        lambda random, number: _scan_of(
            run, source, "pytorch_model.bin", _pickled(content, random), number=number, weights=_from_torch
        ),
    )
    assert good > 3
    assert bad > 15


# --- what scans left behind ---


@pytest.fixture
def scanned(base, run):
    """The files of a sound scan, by ending."""
    assert run("scan", "--model", base, "--quiet")[0] == 0
    return {path.name.partition(".")[2]: path.read_bytes() for path in Path("snr_results").glob("base.*")}


def _show(run, number, content):
    path = Path(f"{number}.json")
    path.write_bytes(content)
    code, out, err = run("show", path)
    text = run("select", path, "--embeddings", "freeze")
    _check_text(code, out, err)
    _check_text(*text)
    return code


def _check_text(code, out, err):
    if code == 0:
        assert out
        assert out.isascii()
        assert "\x1b" not in out
    else:
        _check_failure(code, out, err, Path("nowhere"))


def test_scan_files(scanned, run):
    """Shown and selected from."""
    content = scanned["json"]
    good, bad = _outcomes(70, 4, lambda random, number: _show(run, number, _text(content, random)))
    assert good > 5
    assert bad > 25


def test_spectra_files(scanned, run):
    """Another noise model from mutated spectra: what succeeds has the scores of what the safetensors library reads."""

    def case(random, number):
        folder = Path(f"spectra-{number}")
        folder.mkdir()
        (folder / "m.json").write_bytes(scanned["json"])
        path = folder / "m.spectra.safetensors"
        path.write_bytes(_safetensors(scanned["spectra.safetensors"], random))
        code, out, err = run("show", folder / "m.json", "--noise-model", "mp", "--json")
        if code:
            _check_failure(code, out, err, Path("nowhere"))
            return code
        stored = load(path.read_bytes())
        for name, item in json.loads(out)["parameters"].items():
            assert item["sigma_max"] == stored[name][0].item()
            assert item["nuclear"] == pytest.approx(stored[name].sum().item())
        return code

    good, bad = _outcomes(60, 5, case)
    assert good + bad == 60
    assert bad > 25


def test_partial_files(base, scanned, run, monkeypatch):
    """A scan that carries on from a mutated partial file has the bytes of a whole one."""
    from spectrum.scanning import partial

    with monkeypatch.context() as patch:
        patch.setattr(partial.PartialScan, "remove", partial.PartialScan.close)
        run("scan", "--model", base, "--out", "kept", "--quiet")
    content = Path("kept/base.partial.jsonl").read_bytes()
    lines = content.splitlines(keepends=True)

    def case(random, number):
        folder = Path(f"partial-{number}")
        folder.mkdir()
        at = int(random.integers(len(lines)))
        line = _text(lines[at].rstrip(b"\n"), random)
        mutated = [*lines[:at], line + b"\n", *lines[at + 1 :]] if random.integers(3) else [_bytes(content, random)]
        (folder / "base.partial.jsonl").write_bytes(b"".join(mutated))
        code, _, err = run("scan", "--model", base, "--out", folder, "--quiet")
        assert (code, "Traceback" in err) == (0, False), err
        for ending, expected in scanned.items():
            assert (folder / f"base.{ending}").read_bytes() == expected, ending
        return code

    assert _outcomes(25, 6, case) == (25, 0)


LEGACY = {
    "plain": {f"model.layers.{layer}.mlp.up_proj": {"snr": layer + 0.5, "type": "mlp.up_proj"} for layer in range(4)},
    "sorted": {"mlp.up_proj": {f"model.layers.{layer}.mlp.up_proj": layer + 0.5 for layer in range(4)}},
}


@pytest.mark.parametrize("shape", LEGACY)
def test_older_result_files(run, shape):
    """Imported, and then shown."""
    content = json.dumps(LEGACY[shape]).encode()

    def case(random, number):
        path, out = Path(f"{number}.json"), Path(f"out-{number}")
        path.write_bytes(_text(content, random))
        code, text, err = run("import", path, "--out", out)
        if code:
            _check_failure(code, text, err, out)
            return code
        _check_text(*run("show", out / path.name))
        return code

    good, bad = _outcomes(40, 7, case)
    assert good > 3
    assert bad > 10
