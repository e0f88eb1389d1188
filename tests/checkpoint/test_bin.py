"""Pickled checkpoints: read as torch and transformers read them, and never executed."""

import io
import json
import os
import pickle
import resource
import struct
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from conftest import gaussian, llama_config, tiny_llama, write_checkpoint
from safetensors.torch import save_file

import spectrum
from spectrum.checkpoint import fingerprint, open_checkpoint, open_model
from spectrum.errors import CheckpointError

ZIP_AND_LEGACY = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def _save(saved, path, *, zipped=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(saved, path, _use_new_zipfile_serialization=zipped)
    return path


def _every_kind():
    """Dtypes, views, transposes, ties, parameters, attributes: all that a state dict may hold."""
    dtypes = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
    tensors = {str(dtype): gaussian(7, 5, seed=number, dtype=dtype) for number, dtype in enumerate(dtypes)}
    base = gaussian(300, 200, seed=9)
    attributed = torch.ones(3, 3)
    attributed.note = "kept by torch.save"
    return tensors | {
        "whole": base,
        "tied": base,
        "rows": base[3:40],
        "transposed": base.T,
        "part": base[10:200, 5:60],
        "every third": base[::2, ::3],
        "large part": gaussian(1000, 900, seed=3).T[5:, ::2],
        "stack": torch.rand(3, 4, 5, generator=torch.manual_seed(0)).permute(2, 0, 1),
        "scalar": torch.tensor(2.5),
        "none": torch.zeros(0, 4),
        "parameter": torch.nn.Parameter(gaussian(4, 6, seed=4)),
        "attributed": attributed,
        "positions": torch.arange(4),
        "mask": torch.ones(2, 2, dtype=torch.bool),
        "complex": torch.ones(2, dtype=torch.complex128),
        "negated": torch._neg_view(gaussian(6, 5, seed=5)),
    }


@ZIP_AND_LEGACY
def test_reads_what_torch_loads(tmp_path, zipped):
    """Names, shapes and, bit for bit, the numbers, whole and by rows; entries that are no tensors are left out."""
    saved = _every_kind() | {"epoch": 3, "args": {"lr": 0.1}}
    path = _save(saved, tmp_path / "every.bin", zipped=zipped)
    expected = {k: v for k, v in torch.load(path, weights_only=True).items() if isinstance(v, torch.Tensor)}
    with open_checkpoint(path) as checkpoint:
        assert {name: tensor.shape for name, tensor in checkpoint.tensors.items()} == {
            name: tuple(tensor.shape) for name, tensor in expected.items()
        }
        floats = [name for name, tensor in expected.items() if tensor.dtype in (torch.float32, torch.bfloat16)]
        for name in [*floats, "torch.float64", "torch.float16"]:
            assert checkpoint.read(name).dtype == expected[name].dtype
            assert torch.equal(checkpoint.read(name), expected[name]), name
            if expected[name].ndim and len(expected[name]) > 2:
                assert torch.equal(checkpoint.read(name, 1, 3), expected[name][1:3]), name
        spelled = {"positions": "I64", "mask": "BOOL", "complex": "C128"}
        assert all(checkpoint.tensors[name].dtype == dtype for name, dtype in spelled.items() if name in expected)


@ZIP_AND_LEGACY
def test_an_ordered_state_dict(tmp_path, zipped):
    """As state_dict() gives it: an OrderedDict with attributes."""
    linear = torch.nn.Linear(4, 3)
    with open_checkpoint(_save(linear.state_dict(), tmp_path / "pytorch_model.bin", zipped=zipped)) as checkpoint:
        assert torch.equal(checkpoint.read("weight"), linear.weight)
        assert checkpoint.id == tmp_path.name


def _sharded(folder, tensors, *, zipped=True):
    names = sorted(tensors)
    halves = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for shard, members in halves.items():
        _save({name: tensors[name] for name in members}, folder / shard, zipped=zipped)
    weight_map = {name: shard for shard, members in halves.items() for name in members}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


@ZIP_AND_LEGACY
def test_reads_what_transformers_loads(tmp_path, zipped):
    """A sharded model: every parameter that from_pretrained() makes."""
    import transformers

    folder = _sharded(tmp_path / "m", tiny_llama(layers=1), zipped=zipped)
    (folder / "config.json").write_text(json.dumps(llama_config(1)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers' own
        model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    with open_checkpoint(folder) as checkpoint:
        loaded = dict(model.named_parameters())
        assert set(loaded) == set(checkpoint.tensors)
        assert all(torch.equal(checkpoint.read(name), parameter) for name, parameter in loaded.items())


@ZIP_AND_LEGACY
def test_scores_of_the_same_weights_in_safetensors(tmp_path, run, zipped):
    """Every file that a scan writes has the same bytes, whatever the weights are stored in."""
    tensors = tiny_llama(layers=3)
    write_checkpoint(tmp_path / "a" / "llama", {"_": tensors}, config=llama_config(3))
    folder = _sharded(tmp_path / "b" / "llama", tensors, zipped=zipped)
    (folder / "config.json").write_text(json.dumps(llama_config(3)))
    for each in "ab":
        assert run("scan", "--model", tmp_path / each / "llama", "--out", f"out-{each}")[0] == 0
    names = sorted(path.name for path in Path("out-a").iterdir())
    assert names == sorted(path.name for path in Path("out-b").iterdir())
    for name in names:
        assert Path("out-a", name).read_bytes() == Path("out-b", name).read_bytes(), name


def test_safetensors_come_first(tmp_path):
    """As in transformers: the one file, the index, then the same of .bin."""
    folder = _sharded(tmp_path / "m", {"d": torch.zeros(2), "e": torch.zeros(2)})
    found = []

    def _look():
        with open_checkpoint(folder) as checkpoint:
            found.append("".join(sorted(checkpoint.tensors)))

    (folder / "pytorch_model.bin.index.json").rename(folder / "later.json")
    _save({"c": torch.zeros(2)}, folder / "pytorch_model.bin")
    _look()
    (folder / "later.json").rename(folder / "pytorch_model.bin.index.json")
    _look()
    save_file({"a": torch.zeros(2)}, folder / "x.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "x.safetensors"}}))
    _look()
    save_file({"b": torch.zeros(2)}, folder / "model.safetensors")
    _look()
    assert found == ["c", "c", "a", "b"]


def test_from_the_hub(tmp_path, hub):
    """A model that has only .bin files is downloaded, with a note; streaming it is refused."""
    tensors, notes = tiny_llama(layers=1), []
    hub.push("acme/bin", _sharded(tmp_path / "m", tensors))
    with pytest.raises(CheckpointError, match=r"in \.bin files, which cannot be streamed\. Give --fetch"):
        open_model("acme/bin", fetch="stream")
    with open_model("acme/bin", notify=notes.append) as checkpoint:
        assert checkpoint.tensors.keys() == tensors.keys()
        assert all(torch.equal(checkpoint.read(name), tensor) for name, tensor in tensors.items())
    assert notes == ["'acme/bin' has its weights in .bin files, which are not streamed; downloading them."]


def test_fp8_beside_its_scale(tmp_path):
    """Quantised releases are dequantised from .bin too, also if the codes are stored transposed."""
    codes, scale = (gaussian(48, 64, seed=1)).to(torch.float8_e4m3fn), torch.tensor(0.5)
    path = _save(
        {"m.weight": codes, "m.weight_scale": scale, "t.weight": codes.T, "t.scale": scale}, tmp_path / "x.bin"
    )
    with open_checkpoint(path) as checkpoint:
        assert torch.equal(checkpoint.read("m.weight", 3, 9), codes[3:9].float() * 0.5)
        assert torch.equal(checkpoint.read("t.weight", 3, 9), codes.T[3:9].float() * 0.5)


def test_retrained_in_place(tmp_path):
    """The fingerprint is over the weights, not over the pickle."""
    one = _save({"w": gaussian(64, 64, seed=1)}, tmp_path / "m.bin")
    with open_checkpoint(one) as checkpoint:
        before = fingerprint(checkpoint)
    _save({"w": gaussian(64, 64, seed=2)}, one)
    with open_checkpoint(one) as checkpoint:
        assert fingerprint(checkpoint).headers == before.headers
        assert fingerprint(checkpoint).content != before.content


@ZIP_AND_LEGACY
def test_a_file_that_shrinks_while_open(tmp_path, zipped):
    """An error in one line; touching a page of the map that is gone would end the process."""
    path = _save({"w": gaussian(64, 64, seed=1)}, tmp_path / "m.bin", zipped=zipped)
    with open_checkpoint(path) as checkpoint:
        os.truncate(path, 9_000)
        with pytest.raises(CheckpointError, match="changed after it was opened"):
            checkpoint.read("w")


def test_memory(tmp_path):
    """Of 100 MB, plain and transposed, a few rows: neither the file nor a tensor enters memory whole."""
    path = str(_save({"plain": torch.zeros(25_000, 512), "transposed": torch.zeros(512, 25_000).T}, tmp_path / "m.bin"))
    small = str(_save({"w": torch.zeros(2)}, tmp_path / "small.bin"))
    code = (
        "import resource, sys, torch\n"
        "from spectrum.checkpoint import open_checkpoint\n"
        "torch.load(sys.argv[2], weights_only=True)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "with open_checkpoint(sys.argv[1]) as checkpoint:\n"
        "    for name in ('plain', 'transposed'):\n"
        "        assert checkpoint.read(name, 7, 2007).shape == (2000, 512)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(spectrum.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code, path, small], capture_output=True, text=True, check=True, env=environment
    )
    assert int(done.stdout) * 1024 < 30_000_000


# --- what wants to be run ---


class _Bomb:
    def __init__(self, function, *arguments):
        self._call = (function, arguments)

    def __reduce__(self):
        return self._call


def _replace_pickle(source, target, content):
    """The zip archive with another pickle in it."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, content if info.filename.endswith("/data.pkl") else old.read(info))
    return target


BOMBS = {
    "os.system": ("posix.system", lambda marker: _Bomb(os.system, f"touch {marker}")),
    "eval": ("eval", lambda marker: _Bomb(eval, f"open({str(marker)!r}, 'w')")),
    "exec": ("exec", lambda marker: _Bomb(exec, f"open({str(marker)!r}, 'w')")),
    "open": ("io.open", lambda marker: _Bomb(open, str(marker), "w")),
    "subprocess": ("commands.Popen", lambda marker: _Bomb(subprocess.Popen, ["touch", str(marker)])),
    "getattr": ("getattr", lambda marker: _Bomb(getattr, "os", "system")),
    "module state": ("torch.serialization.load", lambda marker: _Bomb(torch.load, str(marker))),
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("place", ["zip", "legacy", "plain pickle", "inside"])
def test_nothing_is_executed(tmp_path, bomb, place):
    """Real pickles that call something: refused in one line by name, and the marker file never appears."""
    name, make = BOMBS[bomb]
    marker, path = tmp_path / "marker", tmp_path / "m" / "pytorch_model.bin"
    path.parent.mkdir()
    fallen = make(marker)
    if place == "plain pickle":
        path.write_bytes(pickle.dumps(fallen, protocol=2))
    else:
        saved = OrderedDict(w=gaussian(48, 64, seed=1), x=fallen) if place == "inside" else fallen
        torch.save(saved, path, _use_new_zipfile_serialization=place != "legacy")
    with pytest.raises(CheckpointError) as raised:
        open_checkpoint(path.parent)
    assert str(raised.value) == (
        f"'{path}' asks for '{name}' when it is loaded, which weights do not need; it was not executed. Scan the "
        "model's safetensors release, or save the state_dict() of one that you trust."
    )
    assert not marker.exists()


def test_a_bomb_ends_the_command_in_one_line(tmp_path, run):
    """The same through the command line."""
    path = _save(BOMBS["os.system"][1](tmp_path / "marker"), tmp_path / "m" / "pytorch_model.bin")
    code, out, err = run("scan", "--model", path.parent)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"spectrum: '{path}' asks for 'posix.system' when it is loaded")
    assert not (tmp_path / "marker").exists()
    assert not Path("snr_results").exists()


def test_the_bombs_are_real(tmp_path):
    """The pickle of the test above does run when it is loaded as pickles are."""
    marker = tmp_path / "marker"
    pickle.loads(pickle.dumps(BOMBS["os.system"][1](marker)))  # noqa: S301
    assert marker.exists()


# --- what is refused, and what is no sound file ---


def _tar(path):
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name in ("storages", "tensors", "pickle"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO(b""))


def _script(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; its files are still around
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(path))


def _quantized(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's quantised tensors are deprecated
        _save({"w": torch.quantize_per_tensor(torch.ones(3, 3), 0.1, 0, torch.qint8)}, path)


def _saved(value, *, zipped=True):
    return lambda path: _save(value, path, zipped=zipped)


def _compressed(path):
    _save({"w": torch.zeros(2000)}, path.with_suffix(".tmp"))
    with zipfile.ZipFile(path.with_suffix(".tmp")) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))


def _altered(old, new, *, zipped=True):
    """Bytes of the pickle replaced by as many others, the checksum right again."""

    def make(path):
        saved = _save({"w": gaussian(6, 4, seed=1)}, path.with_suffix(".tmp"), zipped=zipped)
        assert len(old) == len(new)
        if zipped:
            with zipfile.ZipFile(saved) as archive:
                content = archive.read(archive.namelist()[0])
            _replace_pickle(saved, path, content.replace(old, new))
        else:
            content = saved.read_bytes()
            path.write_bytes(content.replace(old, new))
        assert old in content

    return make


def _of_pickle(content):
    """An archive whose pickle is these bytes."""

    def make(path):
        _save({"w": torch.zeros(2)}, path.with_suffix(".tmp"))
        _replace_pickle(path.with_suffix(".tmp"), path, content)

    return make


def _two_records(path):
    _save({"w": torch.zeros(2)}, path)
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")  # that is the point
        archive.writestr(archive.namelist()[0], b"again")


def _cut(zipped):
    return lambda path: os.truncate(_save({"w": gaussian(64, 64, seed=1)}, path, zipped=zipped), 9_000)


def _directory_of_a_terabyte(path):
    """A sparse file whose zip directory claims most of it."""
    size = 1 << 40
    end = zipfile.structEndArchive64, b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, size, 0
    record = struct.pack(*end)
    locator = struct.pack(zipfile.structEndArchive64Locator, b"PK\x06\x07", 0, size, 1)
    last = struct.pack(zipfile.structEndArchive, b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    with path.open("wb") as file:
        file.write(b"PK\x03\x04")
        file.seek(size)
        file.write(record + locator + last)


DAMAGED = r"is damaged or not a file of torch\.save: torch\.load\(weights_only=True\) refuses it"
ODD = "holds 'w' as a tensor that is quantised, sparse, nested or without data, which is not read"
REFUSED = {
    "tar": (_tar, DAMAGED),
    "TorchScript": (_script, DAMAGED),
    "quantised": (_quantized, ODD),
    "sparse": (_saved({"w": torch.eye(3).to_sparse()}), ODD),
    "meta": (_saved({"w": torch.ones(3, device="meta")}), ODD),
    "nested": (_saved({"state_dict": {"w": torch.ones(2)}}), "holds its tensors under the entry 'state_dict', which"),
    "one tensor": (_saved(torch.ones(2)), "does not hold a state dict"),
    "a list": (_saved([torch.ones(2)], zipped=False), "does not hold a state dict"),
    "no tensors": (_saved({"epoch": 3}), "holds no tensors"),
    "numbered": (_saved({0: torch.ones(2)}), "has a tensor called 0: a name must be printable"),
    "two lines": (_saved({"a\nb": torch.ones(2)}), r"has a tensor called 'a\\nb': a name must be printable"),
    "expanded": (_saved({"w": torch.ones(1).expand(10**9)}), "holds 'w' with several entries in one place"),
    "compressed": (_compressed, DAMAGED),
    "two records": (_two_records, DAMAGED),
    "zip cut": (_cut(zipped=True), DAMAGED),
    "legacy cut": (_cut(zipped=False), DAMAGED),
    "empty": (lambda path: path.write_bytes(b""), DAMAGED),
    "a Git LFS pointer": (lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "Git LFS"),
    "a directory of a terabyte": (_directory_of_a_terabyte, DAMAGED),
    "more rows than stored": (_altered(b"K\x06K\x04\x86", b"K\x07K\x04\x86"), DAMAGED),
    "larger strides": (_altered(b"K\x04K\x01\x86", b"K\x05K\x01\x86"), DAMAGED),
    "another size": (_altered(b"cpuq\x06K\x18", b"cpuq\x06K\x17"), DAMAGED),
    "another count, legacy": (_altered(struct.pack("<Q", 24), struct.pack("<Q", 25), zipped=False), DAMAGED),
    "another dtype": (_altered(b"FloatStorage", b"HalfStorage\n"), DAMAGED),
    "long text": (_of_pickle(b"\x80\x02X\xff\xff\xff\xff" + b"a" * 99 + b"."), DAMAGED),
    "far memo": (_of_pickle(b"\x80\x02}r\xff\xff\xff\xff."), "holds no tensors"),
    "unknown operation": (_of_pickle(b"\x80\x04}\x94."), DAMAGED),
    "no end": (_of_pickle(b"\x80\x02}"), DAMAGED),
    "call of data": (_of_pickle(b"\x80\x02})R."), DAMAGED),
    "storage of nothing": (_of_pickle(b"\x80\x02)Q."), DAMAGED),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(tmp_path, case):
    """Each in one sentence, and none takes more memory than a few times the file."""
    make, message = REFUSED[case]
    (tmp_path / "m").mkdir()
    path = tmp_path / "m" / "pytorch_model.bin"
    make(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=message) as raised:
        open_checkpoint(path.parent)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 400 + len(str(path))
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 500_000_000
