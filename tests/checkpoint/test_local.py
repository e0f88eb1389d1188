"""Opening and reading checkpoints, and every fault that file names and headers can tell."""

import json
import os
import struct
import threading
import time
from pathlib import Path

import pytest
import torch
from conftest import gaussian, llama_config, tiny_llama, write_checkpoint
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from spectrum.checkpoint import open_checkpoint
from spectrum.checkpoint.headers import parse_header
from spectrum.errors import CheckpointError


def _raw(path, header, data=b""):
    """A safetensors file of our own making, sound or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def _entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_reads_what_safetensors_reads(tmp_path):
    """Every dtype, several shapes and shards: bit for bit what the safetensors library loads."""
    dtypes = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
    first = {f"a.{number}": gaussian(7, 5, seed=number, dtype=dtype) for number, dtype in enumerate(dtypes)}
    second = {"stack": torch.randn(3, 4, 5, generator=torch.manual_seed(0)), "scalar": torch.tensor(2.5)}
    folder = write_checkpoint(tmp_path / "m", {"x.safetensors": first, "y.safetensors": second})
    expected = load_file(folder / "x.safetensors") | load_file(folder / "y.safetensors")
    with open_checkpoint(folder) as checkpoint:
        assert set(checkpoint.tensors) == set(expected)
        for name, tensor in expected.items():
            assert checkpoint.read(name).dtype == tensor.dtype
            assert torch.equal(checkpoint.read(name), tensor)
            assert checkpoint.tensors[name].shape == tuple(tensor.shape)


def test_reads_rows(tmp_path):
    """A range along the first dimension, of a matrix and of a stack."""
    tensors = {"matrix": gaussian(9, 4, seed=1), "stack": gaussian(6, 8, seed=2).reshape(3, 2, 8)}
    with open_checkpoint(write_checkpoint(tmp_path / "m", {"_": tensors})) as checkpoint:
        assert torch.equal(checkpoint.read("matrix", 2, 5), tensors["matrix"][2:5])
        assert torch.equal(checkpoint.read("matrix", 7), tensors["matrix"][7:])
        assert torch.equal(checkpoint.read("stack", 1, 2), tensors["stack"][1:2])
        with pytest.raises(ValueError, match="rows 3 to 10 of a tensor with 9"):
            checkpoint.read("matrix", 3, 10)


def test_threads_do_not_mix_up_what_they_read(tmp_path):
    """Two threads on one shard, as reading ahead and computing are: each gets its own tensor, every time."""
    tensors = {name: torch.full((700, 700), float(number)) for number, name in enumerate("ab")}
    wrong = []
    with open_checkpoint(write_checkpoint(tmp_path / "m", {"_": tensors})) as checkpoint:

        def _hammer(name):
            wrong.extend(name for _ in range(150) if not torch.equal(checkpoint.read(name), tensors[name]))

        threads = [threading.Thread(target=_hammer, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_stray_files_are_not_read(tmp_path):
    """Mistral's consolidated.safetensors, a variant and an adapter beside the model are left alone."""
    folder = write_checkpoint(tmp_path / "m", {"_": {"w": gaussian(4, 4, seed=1)}})
    for stray in ("consolidated", "model.fp16", "adapter_model"):
        save_file({"stray": torch.zeros(2)}, folder / f"{stray}.safetensors")
    with open_checkpoint(folder) as checkpoint:
        assert list(checkpoint.tensors) == ["w"]


@pytest.mark.parametrize("safe", [True, False])
def test_a_single_file_and_an_index_are_told_apart_as_transformers_does(tmp_path, safe):
    """Where a folder holds the model twice, what is scored is what is trained; .bin comes last."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = write_checkpoint(tmp_path / "m", {"_": tiny_llama(layers=1, seed=1)}, config=llama_config(1))
    sharded = {f"{part}.safetensors": {} for part in "ab"}
    for number, (name, tensor) in enumerate(tiny_llama(layers=1, seed=2).items()):
        sharded[f"{'ab'[number % 2]}.safetensors"][name] = tensor
    write_checkpoint(folder, sharded, config=llama_config(1))
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}} | json.loads(index.read_text())))  # transformers asks for it
    if not safe:
        (folder / "model.safetensors").unlink()
    torch.save(tiny_llama(layers=1, seed=3), folder / "pytorch_model.bin")
    name = "model.layers.0.mlp.up_proj.weight"
    loaded = LlamaForCausalLM.from_pretrained(folder, config=LlamaConfig.from_pretrained(folder), dtype="auto")
    with open_checkpoint(folder) as checkpoint:
        assert torch.equal(checkpoint.read(name), loaded.get_parameter(name))
        assert torch.equal(checkpoint.read(name), tiny_llama(layers=1, seed=1 if safe else 2)[name])


def test_one_file_by_name(tmp_path):
    """A single file is a checkpoint; its id is its name, or its folder's where the name is the usual one."""
    save_file({"w": torch.zeros(2, 2)}, tmp_path / "special.safetensors")
    with open_checkpoint(tmp_path / "special.safetensors") as checkpoint:
        assert (checkpoint.id, list(checkpoint.tensors)) == ("special", ["w"])
    folder = write_checkpoint(tmp_path / "m", {"_": {"w": torch.zeros(2, 2)}})
    with open_checkpoint(folder / "model.safetensors") as checkpoint:
        assert checkpoint.id == "m"


def test_hub_cache_snapshot(hub_snapshot):
    """A snapshot's files are links into blobs; id and revision come from the cache's folder names."""
    with open_checkpoint(hub_snapshot) as checkpoint:
        assert (checkpoint.id, checkpoint.revision) == ("owner/name", hub_snapshot.name)
        assert torch.equal(checkpoint.read("w"), gaussian(64, 64, seed=1))
    with open_checkpoint(hub_snapshot / "model.safetensors") as checkpoint:
        assert (checkpoint.id, checkpoint.revision) == ("owner/name", hub_snapshot.name)


def test_dtypes_of_less_than_a_byte(tmp_path):
    """Three numbers of four bits fill two bytes."""
    header = json.dumps({"w": _entry("F4", (3,), (0, 2))}).encode()
    tensors = parse_header(header, file_size=8 + len(header) + 2, shard="s", path="s")
    assert tensors["w"].size_bytes == 2


def test_integers_are_not_read(tmp_path):
    """They are listed; reading them as weights is an error."""
    folder = write_checkpoint(tmp_path / "m", {"_": {"p": torch.arange(4)}})
    with open_checkpoint(folder) as checkpoint, pytest.raises(CheckpointError, match="dtype I64, which is not scored"):
        checkpoint.read("p")


def test_a_file_that_shrinks_while_open(tmp_path):
    """Rows that vanished after the header was checked are an error, never zeros."""
    folder = write_checkpoint(tmp_path / "m", {"_": {"w": gaussian(64, 64, seed=1)}})
    with open_checkpoint(folder) as checkpoint:
        with (folder / "model.safetensors").open("rb+") as file:
            file.truncate(9_000)
        with pytest.raises(CheckpointError, match="changed after it was opened"):
            checkpoint.read("w")


@pytest.mark.parametrize("linked", ["shards", "everything", "the folder", "a chain"])
def test_links_are_followed(tmp_path, linked):
    """Shards on another disk, or in the Hub's cache: the links of a folder are its owner's business."""
    away = write_checkpoint(tmp_path / "away", {"_": {"w": gaussian(4, 4, seed=1)}}, config={"model_type": "x"})
    folder = tmp_path / "m"
    if linked == "the folder":
        folder.symlink_to(away)
    else:
        folder.mkdir()
        (folder / "model.safetensors").symlink_to(Path("..", "away", "model.safetensors"))
    if linked == "everything":
        (folder / "config.json").symlink_to(away / "config.json")
    if linked == "a chain":
        (folder / "model.safetensors").rename(tmp_path / "between")
        (folder / "model.safetensors").symlink_to(tmp_path / "between")
        (tmp_path / "between").unlink()
        (tmp_path / "between").symlink_to(away / "model.safetensors")
    with open_checkpoint(folder) as checkpoint:
        assert torch.equal(checkpoint.read("w"), gaussian(4, 4, seed=1))
        assert (checkpoint.revision, checkpoint.config is None) == (None, linked in ("shards", "a chain"))


def _missing_shard(folder):
    write_checkpoint(folder, {"a.safetensors": {"w": torch.zeros(2)}, "b.safetensors": {"v": torch.zeros(2)}})
    (folder / "b.safetensors").unlink()


def _tensor_not_in_its_shard(folder):
    write_checkpoint(folder, {"a.safetensors": {"w": torch.zeros(2)}, "b.safetensors": {"v": torch.zeros(2)}})
    save_file({"u": torch.zeros(2)}, folder / "b.safetensors")


def _tensor_twice(folder):
    write_checkpoint(folder, {"a.safetensors": {"w": torch.zeros(2)}, "b.safetensors": {"v": torch.zeros(2)}})
    save_file({"v": torch.zeros(2), "w": torch.zeros(2)}, folder / "b.safetensors")


def _truncated(folder):
    write_checkpoint(folder, {"_": {"w": gaussian(64, 64, seed=1)}})
    with (folder / "model.safetensors").open("rb+") as file:
        file.truncate(9_000)


def _index_without_map(folder):
    (folder / "model.safetensors.index.json").write_text('{"metadata": {}}')


def _index_cut_in_half(folder):
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"w": "a.safe')


def _index_leads_out(folder):
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"w": "../../etc/passwd"}}')


def _index_of(shard):
    index = json.dumps({"weight_map": {"w": shard}})
    return lambda folder: (folder / "model.safetensors.index.json").write_text(index)


def _config_is_a_list(folder):
    write_checkpoint(folder, {"_": {"w": torch.zeros(2)}})
    (folder / "config.json").write_text("[]")


def _only(name):
    return lambda folder: (folder / name).write_bytes(b"GGUF")


def _header(header, data=b"\0" * 8):
    return lambda folder: _raw(folder / "model.safetensors", header, data)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"
PAGE = b"\n  <!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>"


def _content(name, content):
    def make(folder):
        write_checkpoint(folder, {"a.safetensors": {"w": torch.zeros(2)}, "b.safetensors": {"v": torch.zeros(2)}})
        (folder / name).write_bytes(content)

    return make


def _shards_without_index(ending):
    return lambda folder: (folder / f"model-00001-of-00002.{ending}").write_bytes(b"")


_FAULTS = {
    "pointer as shard": (_content("b.safetensors", POINTER), "b.safetensors' is a Git LFS pointer, not the weights"),
    "pointer as index": (_content("model.safetensors.index.json", POINTER), "index.json' is a Git LFS pointer"),
    "page as shard": (_content("b.safetensors", PAGE), "b.safetensors' is an HTML page, not the weights"),
    "error as shard": (
        _content("b.safetensors", b'{"error":"Repository not found"}'),
        """begins with the text '{"error""",
    ),
    "error of several lines": (_content("b.safetensors", b'{\n "error": 404\n}'), """text '{ "error": 404 }'"""),
    "text as shard": (_content("b.safetensors", b"Entry not found"), "begins with the text 'Entry not found'"),
    "page as config": (_content("config.json", PAGE), "config.json' is an HTML page"),
    "no index": (_shards_without_index("safetensors"), r"holds shards \('model-00001-of-00002.safetensors'\) without"),
    "no index of bin": (_shards_without_index("bin"), "without 'pytorch_model.bin.index.json', which says which"),
    "empty folder": (lambda folder: None, "is empty. Download the checkpoint into it."),
    "only gguf": (_only("model-q4.gguf"), "holds only GGUF weights, which are quantised for inference"),
    "bin of no pickle": (_only("pytorch_model.bin"), "is damaged or not a file of torch.save"),
    "bin of another name": (_only("consolidated.00.pth"), "holds pickled weights .* under other names than"),
    "adapter": (_only("adapter_model.safetensors"), "holds an adapter, not a model"),
    "something else": (_only("README.md"), "has neither 'model.safetensors.index.json' nor 'model.safetensors'"),
    "shard absent": (_missing_shard, "lists shard 'b.safetensors', which does not exist"),
    "tensor not in its shard": (_tensor_not_in_its_shard, "says that tensor 'v' is in 'b.safetensors', but it is not"),
    "tensor in two shards": (_tensor_twice, "Tensor 'w' is in two shards"),
    "truncated": (_truncated, "has 9000 bytes, but its header describes"),
    "index without map": (_index_without_map, "has no 'weight_map' that names tensors"),
    "index cut": (_index_cut_in_half, "is not valid JSON"),
    "index leads out": (_index_leads_out, "which is not a file inside the folder"),
    "config no object": (_config_is_a_list, "config.json' is not a JSON object"),
    "no header": (lambda folder: (folder / "model.safetensors").write_bytes(b"abc"), "has only 3 bytes"),
    "header too long": (
        lambda folder: (folder / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 40) + b"{}"),
        "announces a header of 1099511627776 bytes but has only 10 bytes in all",
    ),
    "header no json": (_header(b"{not json"), "is not valid JSON. The file is damaged"),
    "header no object": (_header(b"[1]"), "is not a JSON object"),
    "name twice": (_header(b'{"w": 1, "w": 2}'), "lists 'w' twice"),
    "unknown dtype": (_header({"w": _entry("F99")}), "Tensor 'w' in .* has the unknown dtype 'F99'"),
    "no shape": (_header({"w": {"dtype": "F32", "data_offsets": [0, 8]}}), "without a sound dtype, shape and"),
    "negative shape": (_header({"w": _entry(shape=(-2,))}), "without a sound dtype, shape and"),
    "shape of floats": (_header({"w": _entry(shape=(2.0,))}), "without a sound dtype, shape and"),
    "shape and bytes disagree": (_header({"w": _entry(shape=(3,))}), r"needs 12 bytes for shape \[3\] in F32"),
    "huge shape": (_header({"w": _entry(shape=(1 << 40, 1 << 40))}), "needs 4835703278458516698824704 bytes"),
    "overlap": (_header({"w": _entry(), "v": _entry(offsets=(4, 12))}), "ranges overlap or leave a hole"),
    "hole": (_header({"w": _entry(offsets=(4, 12))}, b"\0" * 12), "ranges overlap or leave a hole"),
    "trailing bytes": (_header({"w": _entry()}, b"\0" * 9), "was altered"),
    "control character": (
        _header({"w\n": _entry()}),
        "a name must be printable text of at most 10000 characters",
    ),
    "shard of no name": (_index_of(""), "which is not a file inside the folder"),
    "shard of a long name": (_index_of("x" * 300), "lists shard 'xxx.*, which does not exist|File name too long"),
    "a pipe for weights": (lambda folder: os.mkfifo(folder / "model.safetensors"), "has neither"),
    "no tensors": (_header({}, b""), "holds no tensors"),
}


@pytest.mark.parametrize("fault", _FAULTS)
def test_faults_that_headers_tell(tmp_path, fault):
    """Each is found on opening, before a byte of weights is read, and named together with what to do."""
    make, message = _FAULTS[fault]
    folder = tmp_path / "m"
    folder.mkdir()
    make(folder)
    with pytest.raises(CheckpointError, match=message) as raised:
        open_checkpoint(folder)
    assert "\n" not in str(raised.value)


SOUND = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
W = json.dumps(SOUND).encode()


def _of(**changes):
    return json.dumps({"w": SOUND | changes}).encode()


HEADERS = [
    b'{"w": ' + W + b"}",
    b'{"w": ' + W + b"}      ",
    b' {"w": ' + W + b"}",
    b'{"__metadata__": {"format": "pt"}, "w": ' + W + b"}",
    b'{"__metadata__": null, "w": ' + W + b"}",
    b'{"w\\u00e9": ' + W + b"}",
    '{"w\u00e9": '.encode() + W + b"}",
    b"\xef\xbb\xbf" + b'{"w": ' + W + b"}",
    ('{"w": ' + W.decode() + "}").encode("utf-16"),
    ('{"w": ' + W.decode() + "}").encode("utf-16-le"),
    ('{"w": ' + W.decode() + "}").encode("utf-32"),
    '{"w\u00e9": '.encode("latin-1") + W + b"}",
    b'{"\xed\xa0\x80": ' + W + b"}",
    b'{"\\ud800": ' + W + b"}",
    *[
        b'{"__metadata__": %s, "w": %s}' % (odd, W)
        for odd in (b'{"a": 1}', b'{"a": null}', b'{"a": {}}', b"[]", b'"a"')
    ],
    *[b'{"__metadata__": {"a": %s}, "w": %s}' % (odd, W) for odd in (b"true", b"1.5", b'["a"]')],
    _of(data_offsets=[0, 8]).replace(b"[0, 8]", b"[-0, 8]"),
    _of(shape=[0], data_offsets=[0, 0]).replace(b"[0, 0]", b"[-0, -0]"),
    *[_of().replace(b"[2]", odd) for odd in (b"[2.0]", b"[2e0]", b"[-2]", b"[02]", b"[+2]", b"2", b"null", b"[true]")],
    *[_of().replace(b"[0, 8]", odd) for odd in (b"[0.0, 8]", b"[0]", b"[0, 8, 8]", b"[8, 0]", b"null", b"[NaN, 8]")],
    _of().replace(b"8]", b"99999999999999999999]"),
    *[_of(dtype=odd) for odd in ("f32", "F99", 1, None, "I32", "BF16")],
    _of().replace(b'"dtype": "F32", ', b""),
    _of().replace(b'"dtype"', b'"dtype": "F32", "dtype"'),
    b'{"w": ' + W + b', "w": ' + W + b"}",
    b'{"w": ' + W + b"} x",
    b'{"w": ' + W + b",}",
    b"{'w': " + W + b"}",
    b'{"w": ' + W + b"}\x00",
    b"[" + W + b"]",
    b"null",
    b"",
    b"{",
    b'{"w": NaN}',
    b'{"w": ' + W[:-1] + b', "x": NaN}}',
    b'{"w": ' + W[:-1] + b', "x": Infinity}}',
    b'{"w\n": ' + W + b"}",
]


@pytest.mark.parametrize("header", HEADERS, ids=range(len(HEADERS)))
def test_headers_that_safetensors_refuses_are_refused(tmp_path, header):
    """The library itself is the oracle: what it does not read, nobody trains."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + (b"" if b'"shape": [0]' in header else b"\0" * 8))
    try:
        expected = load_file(path)
    except SafetensorError:
        with pytest.raises(CheckpointError, match=r"^(The header of )?'|^Tensor '"):
            open_checkpoint(path)
        return
    try:
        with open_checkpoint(path) as checkpoint:
            assert checkpoint.tensors.keys() == expected.keys()
    except CheckpointError as error:  # stricter: one name twice, which readers understand differently
        assert "twice" in str(error)  # noqa: PT017


def test_too_many_tensors(tmp_path):
    """A header of a million empty tensors is refused before it is parsed."""
    entry = b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = b"{" + b",".join(entry % number for number in range(10**6)) + b"}"
    path = _raw(tmp_path / "model.safetensors", header)
    start = time.process_time()
    with pytest.raises(CheckpointError, match="describes more than 400000 tensors, which no model has"):
        open_checkpoint(path)
    assert time.process_time() - start < 2


def test_a_path_that_is_not_there(tmp_path):
    """Neither a folder nor a file."""
    with pytest.raises(CheckpointError, match="There is no folder 'nowhere', nor a file of that name"):
        open_checkpoint("nowhere")
    (tmp_path / "model.gguf").touch()
    with pytest.raises(CheckpointError, match="is neither a .safetensors nor a .bin file"):
        open_checkpoint("model.gguf")
