"""Hostile files, made by hand: one clear line, little memory, no waiting; and what happens when disk or memory end."""

import json
import os
import resource
import socket
import struct
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from conftest import gaussian, llama_config, tiny_llama, write_checkpoint

import spectrum
from spectrum.checkpoint import open_checkpoint
from spectrum.errors import CheckpointError
from spectrum.scanning import partial
from spectrum.spectra import solver
from spectrum.untrusted import cut, read_text, shown

SPECTRUM = [sys.executable, "-m", "spectrum"]
TERABYTE = 1 << 40


def _sparse(path, size, content=b""):
    """A file that claims to be large and takes no room."""
    with path.open("wb") as file:
        file.write(content)
        file.truncate(size)


def _header(entries, data=b""):
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


def _entry(**changes):
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes


def _weights(entries, data=b"\0" * 8):
    return lambda folder: (folder / "model.safetensors").write_bytes(_header(entries, data))


def _config(**changes):
    def make(folder):
        write_checkpoint(folder, {"_": tiny_llama(layers=1)}, config=llama_config(1) | changes)

    return make


def _config_text(text):
    def make(folder):
        write_checkpoint(folder, {"_": tiny_llama(layers=1)})
        (folder / "config.json").write_text(text)

    return make


def _index(text):
    def make(folder):
        write_checkpoint(folder, {"a.safetensors": {}, "b.safetensors": tiny_llama(layers=1)})
        (folder / "model.safetensors.index.json").write_text(text)

    return make


def _large(name):
    def make(folder):
        write_checkpoint(folder, {"a.safetensors": {}, "b.safetensors": tiny_llama(layers=1)})
        _sparse(folder / name, TERABYTE, b'{"weight_map": {')

    return make


def _shard_is(make_shard):
    def make(folder):
        (folder / "model.safetensors.index.json").write_text('{"weight_map": {"w": "s.safetensors"}}')
        make_shard(folder / "s.safetensors")

    return make


def _linked_secret(folder):
    (folder / "secret.txt").write_bytes(struct.pack("<Q", 30) + b"SECRET is no header of any file")
    (folder / "model.safetensors").symlink_to(folder / "secret.txt")


DAMAGED = "without a sound dtype, shape and data_offsets"
NOT_THESE = "it does not belong to these weights"
OUTSIDE = "which is not a file inside the folder"
HOSTILE = {
    "dimensions in a hole": (_weights({"w": _entry(shape=[0, 2**63], data_offsets=[0, 0])}, b""), DAMAGED),
    "millions of dimensions": (_weights({"w": _entry(shape=[2**62] * 200_000)}), DAMAGED),
    "a true dimension": (_weights({"w": _entry(shape=[True, 2])}), DAMAGED),
    "dimensions of an object": (_weights({"w": _entry(shape={})}), DAMAGED),
    "offsets of text": (_weights({"w": _entry(data_offsets="ab")}), DAMAGED),
    "offsets of three": (_weights({"w": _entry(data_offsets=[0, 8, 8])}), DAMAGED),
    "offsets the wrong way round": (_weights({"w": _entry(data_offsets=[8, 0])}), "its data_offsets hold -8"),
    "offsets beyond the file": (
        _weights({"w": _entry(shape=[2**40], data_offsets=[0, 2**42])}),
        "its header describes",
    ),
    "the same bytes twice": (_weights({"w": _entry(), "v": _entry()}), "ranges overlap"),
    "a number of 5000 digits": (_weights(b'{"w": {"shape": [' + b"9" * 5000 + b"]}}"), "is not valid JSON"),
    "half a surrogate pair": (
        _weights(b'{"\\ud800": ' + json.dumps(_entry()).encode() + b"}"),
        "is not valid JSON|a name must be printable text",
    ),
    "a name of a megabyte": (_weights({"w" * 2**20: _entry()}), "text of at most 10000 characters"),
    "a dtype of a megabyte": (_weights({"w": _entry(dtype="F" * 2**20)}), "has the unknown dtype 'FFF"),
    "a header nested deep": (_weights(b"[" * 1_000_000), "is not valid JSON"),
    "a million names, one twice": (
        _weights(b"{" + b",".join(b'"%d":1' % (n % 300_000) for n in range(300_001)) + b"}"),
        "lists '0' twice",
    ),
    "a header of a terabyte": (
        lambda folder: _sparse(folder / "model.safetensors", TERABYTE, struct.pack("<Q", TERABYTE - 8)),
        "no more than 100000000 are allowed",
    ),
    "a config of a terabyte": (_large("config.json"), "config.json' cannot be read: It has 1099511627776 bytes, more"),
    "an index of a terabyte": (_large("model.safetensors.index.json"), "index.json' cannot be read: It has 1099511627"),
    "a config nested deep": (_config_text('{"a":' * 100_000), "config.json' is not valid JSON"),
    "a config of text": (_config_text('"llama"'), "config.json' is not a JSON object"),
    "a config with one name twice": (
        _config_text('{"model_type": "a", "model_type": "b"}'),
        "lists 'model_type' twice",
    ),
    "an index with one name twice": (
        _index('{"weight_map": {"w": "model.safetensors", "w": "model.safetensors"}}'),
        "lists 'w' twice",
    ),
    "a shard above": (_index('{"weight_map": {"w": "../x.safetensors"}}'), OUTSIDE),
    "a shard above, later": (_index('{"weight_map": {"w": "a/../../x.safetensors"}}'), OUTSIDE),
    "a shard elsewhere": (_index('{"weight_map": {"w": "/etc/passwd"}}'), OUTSIDE),
    "a shard of Windows": (_index('{"weight_map": {"w": "..\\\\x.safetensors"}}'), OUTSIDE),
    "a shard with a NUL": (_index('{"weight_map": {"w": "x\\u0000.safetensors"}}'), OUTSIDE),
    "a shard of half a pair": (_index('{"weight_map": {"w": "x\\ud800.safetensors"}}'), OUTSIDE),
    "a shard of a megabyte": (_index(json.dumps({"weight_map": {"w": "x" * 2**20 + "\n"}})), OUTSIDE),
    "a shard that is a number": (_index('{"weight_map": {"w": 1}}'), OUTSIDE),
    "the folder as shard": (_index('{"weight_map": {"w": "."}}'), "lists shard '.', which does not exist"),
    "a pipe as shard": (_shard_is(os.mkfifo), "lists shard 's.safetensors', which does not exist"),
    "a device as shard": (_shard_is(lambda path: path.symlink_to("/dev/zero")), "which does not exist"),
    "other weights by config": (_config(transformers_weights="b.safetensors"), "load 'b.safetensors', not 'model.safe"),
    "a folder as shard": (_shard_is(Path.mkdir), "which does not exist"),
    "a link to itself": (_shard_is(lambda path: path.symlink_to(path)), "does not exist|cannot be read"),
    "a link to a secret": (_linked_secret, "is not valid JSON"),
}


HOSTILE_CONFIGS = {
    "a billion layers": (_config(num_hidden_layers=10**9), NOT_THESE),
    "minus a billion layers": (_config(num_hidden_layers=-(10**9)), NOT_THESE),
    "layers of 400 digits": (_config(num_hidden_layers=10**400), NOT_THESE),
    "infinitely many layers": (_config(num_hidden_layers=float("inf")), NOT_THESE),
    "four thousand layers": (_config(num_hidden_layers=4000), NOT_THESE),
    "a billion experts": (_config(model_type="mixtral", num_local_experts=10**9), NOT_THESE),
    "a wide model": (_config(hidden_size=10**9), NOT_THESE),
    "another model": (_config(hidden_size=128), "config.json does not belong to these weights"),
    "a list of a billion points": (_config(model_type="d_fine", decoder_n_points=10**9), NOT_THESE),
}


def _is_one_line(code, out, err):
    assert (code, out) == (1, ""), err
    assert err.startswith("spectrum: ")
    assert err.count("\n") == 1
    assert len(err) < 2100
    assert "SECRET" not in err


@contextmanager
def _within_bounds():
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    yield
    assert time.monotonic() - start < 30
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 400_000_000


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_checkpoints(tmp_path, case):
    """Each is one short line, within seconds, without much memory."""
    make, message = HOSTILE[case]
    folder = tmp_path / "m"
    folder.mkdir()
    make(folder)
    with _within_bounds(), pytest.raises(CheckpointError) as raised:
        open_checkpoint(folder)
    text = str(raised.value).replace(str(tmp_path), "")
    assert any(part in text for part in message.split("|")), text
    assert len(text) < 400
    assert text.isprintable()
    assert "SECRET" not in text


@pytest.mark.parametrize("case", HOSTILE_CONFIGS)
def test_hostile_configs(tmp_path, run, case):
    """Each ends the command in one line, within seconds, without much memory, and leaves nothing behind."""
    make, message = HOSTILE_CONFIGS[case]
    folder = tmp_path / "m"
    folder.mkdir()
    make(folder)
    with _within_bounds():
        code, out, err = run("scan", "--model", folder, "--embeddings", "freeze")
    _is_one_line(code, out, err)
    assert message in err, err
    assert not list(Path().glob("snr_results/*"))


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": ["llama"]},
        {"model_type": 7},
        {"model_type": "no-such-type"},
        {"hidden_size": -64},
        {"num_attention_heads": 0},
        {"hidden_size": "many"},
        {"architectures": {"a": 1}},
        {"torch_dtype": "float1"},
        {"rope_parameters": [1]},
        {"num_params": 8 * 10**9, "train_batch_size": 10**8, "rope_theta": 10**9},
        {"auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}},
    ],
    ids=str,
)
def test_configs_that_describe_no_model(tmp_path, run, changes):
    """Names are found another way, as a note says, or the config is ignored where it does not matter: same scores."""
    folder = tmp_path / "m"
    write_checkpoint(folder, {"_": tiny_llama(layers=1)}, config=llama_config(1))
    assert run("scan", "--model", folder, "--out", "plain")[0] == 0
    (folder / "config.json").write_text(json.dumps(llama_config(1) | changes))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')")
    code, _, err = run("scan", "--model", folder, "--out", "other")
    assert (code, "Traceback" in err) == (0, False), err
    assert not (tmp_path / "marker").exists()
    plain, other = (json.loads(Path(out, "m.json").read_text())["parameters"] for out in ("plain", "other"))
    assert plain == other


def _scan_file(run, tmp_path):
    folder = write_checkpoint(tmp_path / "m", {"_": tiny_llama(layers=1)}, config=llama_config(1))
    assert run("scan", "--model", folder)[0] == 0
    return folder, Path("snr_results/m.json")


def test_result_files_of_other_kinds(tmp_path, run):
    """A pipe, a device, a folder or a terabyte in the place of a result file: nobody waits, and nothing is read."""
    folder, path = _scan_file(run, tmp_path)
    os.mkfifo("pipe")
    _sparse(Path("large"), TERABYTE, b"{")
    for odd in ("pipe", "/dev/zero", str(tmp_path), "large"):
        for words in (["show", odd], ["select", odd], ["import", odd]):
            _is_one_line(*run(*words))
    path.unlink()
    os.mkfifo(path)
    code, _, err = run("scan", "--model", folder)
    assert (code, "Traceback" in err) == (1, False)
    path.unlink()
    spectra = path.with_name("m.spectra.safetensors")
    spectra.unlink()
    os.mkfifo(spectra)
    code, _, err = run("scan", "--model", folder)
    assert (code, "is not a file that can be replaced" in err) == (1, True)
    spectra.unlink()
    partial = path.with_name("m.partial.jsonl")
    partial.unlink()
    os.mkfifo(partial)
    code, _, err = run("scan", "--model", folder)
    assert (code, "m.partial.jsonl' cannot be written" in err) == (1, True)


def test_numbers_and_names_in_scan_files(tmp_path, run):
    """What Python cannot write, and what no terminal may get."""
    _, path = _scan_file(run, tmp_path)
    text = path.read_text()
    name = "model.layers.0.mlp.up_proj.weight"
    for old, new in (
        ('"parameters": ', '"parameters": 9' + "9" * 5000),
        (f'"{name}": {{', f'"{name}": {{"x": ' + "[" * 100_000 + "],"),
        (f'"{name}": {{', '"model.layers.0.\\u001b[31m": {'),
        (f'"{name}": {{', '"model.layers.0.\\ud800": {'),
        ('"id": "m"', '"id": "m\\nspectrum: fine"'),
        ('"id": "m"', '"id": "m\\ud800"'),
        ('"layer": 0', '"layer": 1' + "0" * 400),
        ('"format": "spectrum-scan"', '"format": "spectrum-scan", "format": "spectrum-scan"'),
    ):
        assert old in text, old
        path.write_text(text.replace(old, new, 1))
        _is_one_line(*run("show", path))


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes a user who may not read the files, which root alone can")
def test_files_that_may_not_be_read(llama):
    """Config, index and shards of somebody else."""
    names = ["config.json", "model.safetensors.index.json", "b.safetensors"]
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from spectrum.checkpoint import open_checkpoint\n"
        "from spectrum.errors import CheckpointError\n"
        "folder, *names = sys.argv[1:]\n"
        "for name in names:\n"
        "    Path(folder, name).chmod(0)\n"
        "    os.seteuid(65534)\n"
        "    try: open_checkpoint(folder)\n"
        "    except CheckpointError as error: print(error)\n"
        "    os.seteuid(0)\n"
        "    Path(folder, name).chmod(0o644)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(spectrum.__file__).parents[1])}
    for folder in (llama, *llama.parents):  # pytest's own are closed to others; one more of them beneath xdist
        if not folder.stat().st_mode & 0o055:
            folder.chmod(0o755)
    for path in llama.iterdir():
        path.chmod(0o644)
    command = [sys.executable, "-c", code, str(llama), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    lines = done.stdout.splitlines()
    assert len(lines) == len(names)
    for name, line in zip(names, lines, strict=True):
        assert f"{name}' cannot be " in line
        assert line.endswith("Permission denied.")


def test_an_older_file_of_an_odd_name(tmp_path, run):
    """Its name, which is no UTF-8 and has two lines, is stored as text."""
    path = tmp_path / os.fsdecode(b"a\xff\nb.json")
    path.write_text(json.dumps({"model.layers.0.mlp.up_proj": {"snr": 1.0, "type": "mlp.up_proj"}}))
    code, out, err = run("import", path)
    assert (code, out.count("\n")) == (0, 1), err
    assert run("show", out.strip())[0] == 0


@pytest.mark.parametrize(
    "name", ["", ".", "a: b", "- a", "#", "'", '"', "^a$", "a{2}", "(", "[a-z]*", "%s", "{x}", "é"]
)
def test_names_that_mean_something_to_yaml_or_re(tmp_path, run, name):
    """Exported so that they match themselves alone, or refused in one line."""
    import yaml

    tensors = {
        f"model.layers.0.{name}.weight": gaussian(48, 64, seed=1),
        "model.layers.0.b.weight": gaussian(48, 64, seed=2),
    }
    folder = write_checkpoint(tmp_path / "m", {"_": tensors})
    code, out, err = run("scan", "--model", folder, "--embeddings", "freeze", "--top", "100")
    if code:
        _is_one_line(code, out, err.splitlines(keepends=True)[-1])
    else:
        listed = yaml.safe_load(Path("snr_results/m.top100-embeddings-freeze.yaml").read_text())["unfrozen_parameters"]
        assert len(listed) == 2


@pytest.mark.parametrize("odd", ["pipe", "device", "folder", "socket", "large", "UTF-16", "absent"])
def test_text_is_read_from_regular_files_alone(tmp_path, odd):
    """Nothing is waited for, whatever a path leads to; the reason is a sentence."""
    path, reason = tmp_path / "x", "It is not a regular file"
    if odd == "pipe":
        os.mkfifo(path)
    elif odd == "device":
        path.symlink_to("/dev/zero")
    elif odd == "folder":
        path.mkdir()
        reason = "Is a directory"
    elif odd == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
        reason = "No such device or address"
    elif odd == "large":
        _sparse(path, TERABYTE, b"a: 1")
        reason = f"It has {TERABYTE} bytes, more than the 1000 expected"
    elif odd == "UTF-16":
        path.write_bytes("a: 1".encode("utf-16"))
        reason = "It is not text in UTF-8"
    else:
        reason = "No such file or directory"
    with pytest.raises(OSError, match=reason) as raised:
        read_text(path, most=1000)
    assert raised.value.strerror == reason
    path.with_name("sound").write_text("a: é", encoding="utf-8")
    assert read_text(path.with_name("sound"), most=1000) == "a: é"


def test_values_in_errors_are_short():
    """Text is cut, and what has no end is counted."""
    assert shown("a" * 500) == "'" + "a" * 100 + "...'"
    assert cut("a\n" + "b" * 500) == "a " + "b" * 98 + "..."
    assert shown(10**5000) == "a number of many digits"
    assert (shown([1] * 9), shown({"a": 1}), shown(["x", 1])) == ("a list of 9", "an object of 1", "['x', 1]")


# --- memory ---


NO_MEMORY = RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory: 1 bytes")
FAILURES = {
    "a solver": (torch.linalg.LinAlgError("linalg.svd: failed to converge."), "No solver converged", "solver"),
    "memory for a solver": (NO_MEMORY, "There is not enough free memory", "solver"),
    "memory for a read": (NO_MEMORY, "There is not enough memory to decompose", "reading"),
    "memory of Python": (MemoryError(), "There is not enough memory to decompose", "reading"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_what_torch_fails_on(tmp_path, run, monkeypatch, failure):
    """The matrix is named in one line, and the same command carries on."""
    folder = write_checkpoint(tmp_path / "m", {"_": tiny_llama(layers=1)}, config=llama_config(1))
    error, message, place = FAILURES[failure]

    def fail(*_args, **_options):
        raise error

    with monkeypatch.context() as patch:
        if place == "solver":
            patch.setattr(torch.linalg, "eigvalsh", fail)
            patch.setattr(torch.linalg, "svdvals", fail)
        else:
            patch.setattr("spectrum.scanning.matrices.read_matrix", fail)
        code, out, err = run("scan", "--model", folder, "--quiet")
    _is_one_line(code, out, err)
    assert message in err
    assert "'model.layers.0.mlp." in err
    assert run("scan", "--model", folder, "--quiet")[0] == 0


def test_a_bug_keeps_its_traceback(tmp_path, run, monkeypatch):
    """An error of torch that is neither memory nor solver is not dressed up as one."""
    folder = write_checkpoint(tmp_path / "m", {"_": tiny_llama(layers=1)}, config=llama_config(1))

    def fail(*_args, **_options):
        raise RuntimeError("expected a tensor")

    monkeypatch.setattr(solver, "gram_matrix", fail)
    from spectrum.cli.commands import app

    with pytest.raises(RuntimeError, match="expected a tensor"):
        app(["scan", "--model", str(folder)], prog_name="spectrum")


def test_too_little_memory(tmp_path):
    """A process that may have 100 MB more than what it has loaded, and a matrix that takes 400: one line."""
    wide = torch.zeros(16, 8).repeat(512, 1024).to(torch.bfloat16)  # 8192 x 8192
    wide[0, 0] = 1
    folder = write_checkpoint(tmp_path / "m", {"_": {"model.layers.0.w.weight": wide}})
    code = (
        "import re, resource, sys, spectrum.scanning.decompose, spectrum.naming.tracing, transformers, torch\n"
        "from spectrum.cli.commands import app\n"
        "torch.linalg.eigvalsh(torch.ones(64, 64))\n"
        "loaded = int(re.search(r'VmSize:\\s+(\\d+)', open('/proc/self/status').read()).group(1)) * 1024\n"
        "resource.setrlimit(resource.RLIMIT_AS, (loaded + 100_000_000,) * 2)\n"
        "app(sys.argv[1:], prog_name='spectrum')"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(spectrum.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    words = ["scan", "--model", str(folder), "--quiet"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, env=environment
    )
    *_, line = done.stderr.splitlines(keepends=True)  # after a note on the names
    _is_one_line(done.returncode, done.stdout, line)
    assert "Tensor 'model.layers.0.w.weight' of 'm' cannot be scored: There is not enough free memory" in done.stderr


# --- disk ---


def _same_files(one, other):
    names = sorted(path.name for path in Path(one).glob("m.*"))
    assert names == sorted(path.name for path in Path(other).glob("m.*"))
    assert all(Path(one, name).read_bytes() == Path(other, name).read_bytes() for name in names)


@pytest.fixture
def whole(tmp_path, run, monkeypatch):
    """A checkpoint; 'whole' has the files of its scan, 'complete' a partial file of all its matrices and no more."""
    folder = write_checkpoint(tmp_path / "m", {"_": tiny_llama(layers=4)}, config=llama_config(4))
    assert run("scan", "--model", folder, "--out", "whole")[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr(partial.PartialScan, "remove", partial.PartialScan.close)
        assert run("scan", "--model", folder, "--out", "complete")[0] == 0
    for path in Path("complete").glob("m.[jst]*"):
        path.unlink()
    return folder


@pytest.mark.parametrize("room", [1000, 12_000])
def test_a_full_disk(whole, run, forks, room):
    """No file may grow beyond some bytes: one line; given room, the same command carries on to the same bytes."""
    done = forks.run("scan", "--model", whole, "--quiet", "--out", "broken", file_bytes=room)
    _is_one_line(done.returncode, done.stdout, done.stderr)
    assert "m.partial.jsonl' cannot be written: " in done.stderr
    assert [path.name for path in Path("broken").glob("m.*")] == ["m.partial.jsonl"]
    kept = max(0, Path("broken/m.partial.jsonl").read_bytes().count(b"\n") - 1)
    assert (kept > 5) == (room > 1000)
    code, _, err = run("scan", "--model", whole, "--out", "broken")
    assert (code, f"Carrying on: {kept} matrices" in err) == (0, kept > 0)
    _same_files("broken", "whole")


def test_a_disk_that_is_full_in_the_end(whole, run, forks):
    """All matrices are done, and there is no room for the result: nothing half written, nothing lost."""
    before = Path("complete/m.partial.jsonl").read_bytes()
    done = forks.run("scan", "--model", whole, "--quiet", "--out", "complete", file_bytes=3000)
    _is_one_line(done.returncode, done.stdout, done.stderr)
    assert "m.spectra.safetensors' cannot be written: " in done.stderr
    assert [path.name for path in Path("complete").glob("m.*")] == ["m.partial.jsonl"]
    assert Path("complete/m.partial.jsonl").read_bytes() == before
    code, _, err = run("scan", "--model", whole, "--out", "complete")
    assert (code, "Carrying on: 28 matrices" in err) == (0, True)
    _same_files("complete", "whole")


def test_no_room_for_a_selection(whole, forks):
    """The one that is there stays as it was."""
    yaml = Path("whole/m.top25.yaml")
    before = yaml.read_bytes()
    done = forks.run("select", "whole/m.json", "--norms", "train", "--out", yaml, file_bytes=1000)
    assert (done.returncode, done.stdout) == (1, "")
    assert "m.top25.yaml' cannot be written: " in done.stderr.splitlines()[-1]
    assert yaml.read_bytes() == before
    assert sorted(path.suffix for path in Path("whole").glob("m.*")) == [".json", ".safetensors", ".yaml"]
