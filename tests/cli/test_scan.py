"""`spectrum scan` from end to end, on real files."""

import json
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import LLAMA_SHAPES, llama_config, reference_score, tiny_llama, write_checkpoint
from safetensors.torch import load_file

from spectrum.results import read_scan, read_spectra
from spectrum.scanning import decompose

CONTRACT = 1e-5


def test_end_to_end(llama, run):
    """Every matrix is scored as a float64 SVD of it says, and the YAML lists the best quarter of each type."""
    assert run("scan", "--model", llama, "--top", "25")[0] == 0
    weights = {name: tensor for shard in llama.glob("*.safetensors") for name, tensor in load_file(shard).items()}
    scan = read_scan(Path("snr_results/tiny-llama.json"))
    expected = {name: reference_score(w.double().numpy()) for name, w in weights.items() if "proj" in name}
    assert {item.name for item in scan.parameters} == set(expected)
    for item in scan.parameters:
        snr, threshold = expected[item.name]
        assert item.snr == pytest.approx(snr, rel=CONTRACT)
        assert item.score.threshold == pytest.approx(threshold, rel=CONTRACT)
    listed = yaml.safe_load(Path("snr_results/tiny-llama.top25.yaml").read_text())["unfrozen_parameters"]
    best = {
        name
        for kind in LLAMA_SHAPES
        for name in sorted((n for n in expected if kind in n), key=lambda n: -expected[n][0])[:3]
    }
    assert {line[1:-1] for line in listed} == best | {"lm_head.weight", "model.embed_tokens.weight"}
    assert scan.model.parameters == sum(tensor.numel() for tensor in weights.values())


def test_printed_table(llama, run):
    """The whole of stdout; progress and hints are on stderr."""
    _, out, err = run("scan", "--model", llama)
    lines = out.splitlines()
    assert lines[0].split() == ["module", "type", "parameters", "lowest", "median", "highest", "saturated", "selected"]
    scan = read_scan(Path("snr_results/tiny-llama.json"))
    for line, kind in zip(lines[1:8], sorted(LLAMA_SHAPES), strict=True):
        scores = np.array([np.inf if item.snr is None else item.snr for item in scan.parameters if kind in item.name])
        numbers = [f"{value:.4g}" for value in (scores.min(), np.median(scores), scores.max())]
        saturated = str(np.isinf(scores).sum())
        assert line.split() == [kind, "12", *(n.replace("inf", "saturated") for n in numbers), saturated, "3"]
    sizes = [rows * cols for rows, cols in LLAMA_SHAPES.values()]
    trained, total = 3 * sum(sizes) + 2 * 80 * 64, 12 * (sum(sizes) + 2 * 64) + 2 * 80 * 64 + 64
    share, outer = 100 * trained / total, 1_024_000 / total
    assert lines[8] == f"trainable params: {trained:,} || all params: {total:,} || trainable%: {share:.1f}"
    assert lines[9:] == [
        f"of these, embedding and head: 10,240, {outer:.1f} % of the model; --embeddings freeze leaves them out",
        "selection: snr_results/tiny-llama.top25.yaml",
    ]
    assert [line for line in err.splitlines() if not line.startswith("warning:")] == [
        "Scanning 84 matrices of 84 parameters of 'tiny-llama'.",
        "Wrote 'snr_results/tiny-llama.json' and 'snr_results/tiny-llama.spectra.safetensors'.",
    ]


def test_quiet_and_json(llama, run):
    """--quiet prints the selection's path only; --format json prints the selection only, as the file holds it."""
    assert run("scan", "--model", llama, "--quiet") == (0, "snr_results/tiny-llama.top25.yaml\n", "")
    code, out, _ = run("scan", "--model", llama, "--top", "12.5", "--format", "json")
    assert code == 0
    assert out == Path("snr_results/tiny-llama.top12.5.json").read_text()
    document = json.loads(out)
    group = document["module_types"]["model.layers.*.mlp.down_proj"]
    assert (group["parameters"], len(group["selected"])) == (12, 1)
    assert group["selected"][0]["name"] in document["names"]


def test_same_bytes_twice(llama, run):
    """Two scans of one checkpoint write the same scan, spectra and selection."""
    for out in ("one", "two"):
        assert run("scan", "--model", llama, "--out", out)[0] == 0
    names = sorted(path.name for path in Path("one").iterdir() if path.suffix != ".lock")
    assert names == ["tiny-llama.json", "tiny-llama.spectra.safetensors", "tiny-llama.top25.yaml"]
    for name in names:
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes()


def _is_reused(run, *words):
    code, _, err = run("scan", *words)
    assert code == 0
    return "Using the stored scan" in err


def test_reuse(llama, run):
    """A finished scan that still fits is used again; --rescan forces a new one."""
    assert not _is_reused(run, "--model", llama)
    assert _is_reused(run, "--model", llama, "--top", "50")
    assert not _is_reused(run, "--model", llama, "--rescan")
    moved = shutil.copytree(llama, llama.parent / "elsewhere" / "tiny-llama")
    assert _is_reused(run, "--model", moved)


def test_weights_retrained_in_place_are_scanned_again(llama, run):
    """Same shapes, same sizes, same times, one shard trained on: never the old scan, which stays as it is."""
    run("scan", "--model", llama)
    before = read_scan(Path("snr_results/tiny-llama.json"))
    shard = llama / "a.safetensors"
    times, content = shard.stat(), shard.read_bytes()
    trained = np.frombuffer(content[-20_000:], dtype=np.uint16)[::-1]  # other bfloat16 numbers in each place
    shard.write_bytes(content[:-20_000] + trained.tobytes())
    os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns))
    code, _, err = run("scan", "--model", llama)
    assert code == 0
    (own,) = [path for path in Path("snr_results").glob("*.json") if path.name != "tiny-llama.json"]
    assert f"'snr_results/tiny-llama.json' is a scan of other weights; this one goes to '{own}'." in err
    assert read_scan(Path("snr_results/tiny-llama.json")) == before
    assert read_scan(own).parameters != before.parameters


def test_an_edit_between_the_samples_is_scanned_again(tmp_path, run):
    """A few rows of a large matrix edited, missed by every sample: the file's time tells."""
    weight = torch.randn(1024, 1024, generator=torch.manual_seed(1))
    folder = write_checkpoint(tmp_path / "m", {"_": {"model.layers.0.w.weight": weight}})
    run("scan", "--model", folder)
    snr = read_scan(Path("snr_results/m.json")).parameters[0].snr
    weight[5:8] *= 300
    write_checkpoint(folder, {"_": {"model.layers.0.w.weight": weight}})
    later = Path("snr_results/m.json").stat().st_mtime_ns + 1_000_000
    os.utime(folder / "model.safetensors", ns=(later, later))
    _, _, err = run("scan", "--model", folder)
    assert "is replaced: files of the checkpoint were written after it." in err
    assert read_scan(Path("snr_results/m.json")).parameters[0].snr < snr / 2


def test_experts_stacked_in_groups(tmp_path, run):
    """Two groups of two stacked experts: four matrices, each with a key of its own."""
    stack = torch.randn(2, 2, 40, 64, generator=torch.manual_seed(2))
    tensors = {f"model.layers.0.mlp.experts.{group}.w1.weight": stack[group].clone() for group in (0, 1)}
    assert run("scan", "--model", write_checkpoint(tmp_path / "m", {"_": tensors}))[0] == 0
    (item,) = read_scan(Path("snr_results/m.json")).parameters
    expected = [reference_score(matrix.double().numpy())[0] for matrix in stack.reshape(4, 40, 64)]
    assert [matrix.label for matrix in item.matrices] == ["0.0", "0.1", "1.0", "1.1"]
    assert [matrix.snr for matrix in item.matrices] == pytest.approx(expected, rel=CONTRACT)


@pytest.mark.parametrize("name", ["layers.0.a*b", "layers.0.*", "a*.0.b", "layers." + "7" * 5000 + ".w", "#", "0"])
def test_odd_names(tmp_path, run, name):
    """Scored under their names, or refused in a line; never a traceback."""
    tensors = {"model.layers.0.w.weight": torch.randn(48, 64, generator=torch.manual_seed(1))}
    tensors[name] = torch.randn(48, 64, generator=torch.manual_seed(2))
    code, _, err = run("scan", "--model", write_checkpoint(tmp_path / "m", {"_": tensors}), "--embeddings", "freeze")
    assert (code, "would miss" in err) in ((0, False), (1, True))


@pytest.mark.parametrize("factor", [1e-310, 1e306])
def test_weights_at_the_ends_of_float64(tmp_path, run, factor):
    """Too small or too large to be scored: the parameter is named, no infinity is written."""
    weight = torch.randn(48, 64, generator=torch.manual_seed(1), dtype=torch.float64) * factor
    code, _, err = run("scan", "--model", write_checkpoint(tmp_path / "m", {"_": {"model.layers.0.w.weight": weight}}))
    assert code in (0, 1)
    assert code == 0 or "'model.layers.0.w.weight' of 'm' cannot be scored" in err


def test_folder_names(tmp_path, run):
    """Not ASCII, no UTF-8, control characters; and one too long for the files that would be named after it."""
    tensors = {"model.layers.0.w.weight": torch.randn(48, 64, generator=torch.manual_seed(1))}
    for name in ("mödel 模型", os.fsdecode(b"caf\xe9"), "new\nline\x1b[31m", "-" * 8):
        code, out, err = run("scan", "--model", write_checkpoint(tmp_path / name, {"_": tensors}))
        assert code == 0, (name, err)
        assert "\x1b" not in out + err
    before = set(Path("snr_results").iterdir())
    code, _, err = run("scan", "--model", write_checkpoint(tmp_path / ("n" * 245), {"_": tensors}))
    assert (code, "cannot be written: File name too long" in err) == (1, True)
    assert set(Path("snr_results").iterdir()) == before


def test_narrower_request_uses_the_wider_scan(llama, run):
    """--modules on a stored scan narrows the selection and keeps the file; a wider one adds what is missing."""
    run("scan", "--model", llama)
    whole = Path("snr_results/tiny-llama.json").read_bytes()
    code, out, err = run("scan", "--model", llama, "--modules", "mlp.*")
    assert (code, "Using the stored scan" in err, "q_proj" in out) == (0, True, False)
    assert Path("snr_results/tiny-llama.json").read_bytes() == whole
    _, _, err = run("scan", "--model", llama, "--all-modules")
    assert "Scanning 2 matrices of 2 parameters of 'tiny-llama'; 84 more are stored." in err


def test_other_noise_model_needs_no_decomposition(llama, run):
    """It is computed from the stored spectra, equals a scan made under it, and leaves the stored scan as it is."""
    run("scan", "--model", llama)
    before = Path("snr_results/tiny-llama.json").read_bytes()
    assert _is_reused(run, "--model", llama, "--noise-model", "mp")
    run("scan", "--model", llama, "--noise-model", "mp", "--out", "fresh")
    name = "tiny-llama.top25-mp.yaml"
    assert Path("snr_results", name).read_text() == Path("fresh", name).read_text()
    assert "(noise model mp)" in Path("fresh", name).read_text()
    assert Path("snr_results/tiny-llama.json").read_bytes() == before


def test_a_damaged_stored_scan_is_replaced(llama, run):
    """Said, not used, not fatal."""
    run("scan", "--model", llama)
    path = Path("snr_results/tiny-llama.json")
    whole = path.read_bytes()
    path.write_bytes(whole[:500])
    code, _, err = run("scan", "--model", llama)
    assert code == 0
    assert "it cannot be used ('snr_results/tiny-llama.json' is not valid JSON" in err
    assert path.read_bytes() == whole


def test_stacked_and_per_expert_weights(tmp_path, run):
    """Three experts stacked and three apart: the median over float64 SVDs of each, the numbers kept apart."""
    random = torch.manual_seed(3)
    stack = torch.randn(3, 40, 64, generator=random) * torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    stack[:, 0] += 3
    tensors = {"model.layers.0.moe.stack": stack}
    tensors |= {f"model.layers.0.moe.experts.{expert}.w1.weight": stack[expert].clone() for expert in range(3)}
    folder = write_checkpoint(tmp_path / "moe", {"_": tensors})
    assert run("scan", "--model", folder, "--embeddings", "freeze")[0] == 0
    expected = [reference_score(expert.double().numpy())[0] for expert in stack]
    for item in read_scan(Path("snr_results/moe.json")).parameters:
        assert [matrix.label for matrix in item.matrices] == ["0", "1", "2"]
        assert [matrix.snr for matrix in item.matrices] == pytest.approx(expected, rel=CONTRACT)
        assert item.snr == pytest.approx(sorted(expected)[1], rel=CONTRACT)


def test_spectra_are_those_of_numpy(llama, run):
    """The spectra file holds every singular value."""
    run("scan", "--model", llama)
    scan = read_scan(Path("snr_results/tiny-llama.json"))
    spectra = read_spectra(Path("snr_results/tiny-llama.spectra.safetensors"), fingerprint=scan.model.fingerprint)
    assert set(spectra) == {item.name for item in scan.parameters}
    name = "model.layers.0.mlp.down_proj.weight"
    weight = next(w for shard in llama.glob("*.safetensors") for n, w in load_file(shard).items() if n == name)
    sigma = np.linalg.svd(weight.double().numpy(), compute_uv=False)
    np.testing.assert_allclose(spectra[name], sigma, rtol=CONTRACT)


@pytest.fixture
def mixtral(tmp_path):
    """A tiny Mixtral of 12 experts, saved by transformers with its experts apart, as the Hub has them."""
    import transformers

    config = transformers.MixtralConfig(
        vocab_size=96, hidden_size=64, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=12, num_experts_per_tok=2,
    )  # fmt: skip
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers' own
        transformers.MixtralForCausalLM(config).save_pretrained(tmp_path / "moe")
    return tmp_path / "moe"


def test_experts_under_their_runtime_names(mixtral, run):
    """The file holds 12 experts apart; the trainer sees two parameters a layer, each the median of its matrices."""
    assert run("scan", "--model", mixtral, "--top", "50")[0] == 0
    weights = load_file(mixtral / "model.safetensors")
    scan = read_scan(Path("snr_results/moe.json"))
    assert (scan.model.name_mapping, scan.model.model_class) == ("exact", "MixtralForCausalLM")
    by_name = {item.name: item for item in scan.parameters}
    fused = by_name["model.layers.1.mlp.experts.gate_up_proj"]
    stored = {"gate_proj": "w1", "up_proj": "w3"}
    expected = {
        f"{expert}.{part}": reference_score(
            weights[f"model.layers.1.block_sparse_moe.experts.{expert}.{name}.weight"].double().numpy()
        )[0]
        for expert in range(12) for part, name in stored.items()
    }  # fmt: skip
    assert {matrix.label: matrix.snr for matrix in fused.matrices} == pytest.approx(expected, rel=CONTRACT)
    assert fused.snr == pytest.approx(np.median(list(expected.values())), rel=CONTRACT)
    patterns = yaml.safe_load(Path("snr_results/moe.top50.yaml").read_text())["unfrozen_parameters"]
    assert sum("mlp.experts.gate_up_proj$" in line for line in patterns) == 1


def test_a_sample_of_experts(mixtral, run):
    """--experts 3: whole experts, the same ones for both projections, recorded."""
    run("scan", "--model", mixtral, "--experts", "3")
    scan = read_scan(Path("snr_results/moe.json"))
    assert scan.settings.experts == 3
    numbers = {
        item.name: {matrix.label.partition(".")[0] for matrix in item.matrices}
        for item in scan.parameters if item.kind == "experts" and item.layer == 0
    }  # fmt: skip
    assert len(numbers) == 2
    assert {len(drawn) for drawn in numbers.values()} == {3}
    assert len({frozenset(drawn) for drawn in numbers.values()}) == 1


def test_names_of_the_checkpoint_without_a_config(mixtral, run):
    """One pattern per layer and projection, and a warning that transformers 5 has none of them."""
    (mixtral / "config.json").unlink()
    _, _, err = run("scan", mixtral)
    assert "are those of transformers 4" in err
    patterns = yaml.safe_load(Path("snr_results/moe.top25.yaml").read_text())["unfrozen_parameters"]
    assert any(line.endswith("block_sparse_moe.experts.[0-9]+.w1.weight$") for line in patterns)


def test_a_config_of_fewer_layers_is_an_error(tmp_path, run):
    """Layers beyond those of config.json are no prediction layers unless it says so: half a model is not dropped."""
    folder = write_checkpoint(tmp_path / "m", {"_": tiny_llama(layers=8)}, config=llama_config(2))
    code, _, err = run("scan", "--model", folder)
    assert (code, "of the weights have no place in LlamaForCausalLM" in err) == (1, True)


def test_guessed_kinds_do_not_pass_for_exact(llama, run):
    """A stored scan whose parameters are of other kinds than the model's is replaced, not relabelled."""
    run("scan", "--model", llama)
    path = Path("snr_results/tiny-llama.json")
    path.write_text(path.read_text().replace('"kind": "head"', '"kind": "other"'))
    assert "its parameters have other names, kinds or shapes" in run("scan", "--model", llama)[2]


def test_an_fp8_release_scores_as_its_weights(tmp_path, run):
    """Weights in FP8 with a scale per tensor score as the same numbers in float32; the scan records the format."""
    tensors, plain = tiny_llama(layers=2), {}
    for name, weight in list(tensors.items()):
        if weight.ndim == 2 and "layers" in name:
            tensors[name] = (weight.float() * 20).to(torch.float8_e4m3fn)
            tensors[f"{name}_scale"] = torch.tensor([0.05])
            plain[name] = tensors[name].float() * torch.tensor(0.05)
    config = llama_config(2)
    folder = write_checkpoint(tmp_path / "fp8", {"_": tensors}, config=config)
    assert run("scan", "--model", folder)[0] == 0
    for item in read_scan(Path("snr_results/fp8.json")).parameters:
        assert item.dtype == "F8_E4M3"
        assert item.snr == pytest.approx(reference_score(plain[item.name].double().numpy())[0], rel=CONTRACT)


def test_a_gptq_release_is_refused(tmp_path, run):
    """By name, with what to scan instead."""
    tensors = {
        f"model.layers.0.q.{part}": torch.zeros(8, 8, dtype=torch.int32) for part in ("qweight", "qzeros", "g_idx")
    }
    code, _, err = run("scan", "--model", write_checkpoint(tmp_path / "m", {"_": tensors}))
    assert (code, err.count("\n")) == (1, 1)
    assert "holds GPTQ weights" in err
    assert "Scan the unquantised base model instead." in err


def _nan(tensors):
    tensors["model.layers.3.mlp.down_proj.weight"][5, 7] = float("nan")


def _inf(tensors):
    tensors["model.layers.3.self_attn.q_proj.weight"][0, 0] = float("-inf")


@pytest.mark.parametrize(("spoil", "name"), [(_nan, "mlp.down"), (_inf, "self_attn.q")])
def test_a_weight_that_is_not_finite(tmp_path, run, spoil, name):
    """The tensor is named, nothing is written."""
    tensors = tiny_llama()
    spoil(tensors)
    code, out, err = run(
        "scan", "--model", write_checkpoint(tmp_path / "bad", {"_": tensors}, config=llama_config(12)), "--quiet"
    )
    assert (code, out) == (1, "")
    assert err.startswith(f"spectrum: Tensor 'model.layers.3.{name}_proj.weight' of 'bad' cannot be scored: ")
    assert "holds a number that is not finite" in err
    assert err.count("\n") == 1
    assert {path.suffix for path in Path("snr_results").iterdir()} - {".lock"} == {".jsonl"}


def test_nothing_to_score(tmp_path, run):
    """A file of vectors."""
    folder = write_checkpoint(tmp_path / "v", {"_": {"model.layers.0.norm.weight": torch.ones(64)}})
    code, _, err = run("scan", "--model", folder)
    assert (code, "has no matrix to score among its 1 parameters" in err) == (1, True)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--top", "0"], 2, "Invalid value for '--top': 0 is out of range: give more than 0, at most 100."),
        (["--top", "101"], 2, "101 is out of range"),
        (["--top", "nan"], 2, "nan is out of range"),
        (["--top", "many"], 2, "Invalid value for '--top'"),
        (["--modules", "mlp.downproj"], 1, "No module type matches 'mlp.downproj'. Near ones: mlp.down_proj"),
        (["--noise-model", "gauss"], 2, "Invalid value for '--noise-model'"),
        (["--device", "cuda:9"], 1, "This machine has no device 'cuda:9' that torch can use"),
        (["--device", "quantum"], 2, "'quantum' is not a device"),
        (["--demo"], 2, "give one MODEL, or --demo"),
        (["another"], 2, "give one MODEL, or --demo"),
        (["--frobnicate"], 2, "No such option: --frobnicate"),
        (["--out", "taken/out"], 1, "cannot be written: Not a directory. Choose another place."),
    ],
)
def test_wrong_input(llama, run, words, code, message):
    """One line that says what and what to do; 2 for wrong usage, 1 for the rest; nothing half-written."""
    Path("taken").touch()
    got, out, err = run("scan", "--model", llama, *words)
    assert (got, out) == (code, "")
    assert message in err
    assert err.count("\n") == 1
    assert not list(Path().glob("snr_results/[!.]*"))


def test_no_model(run):
    """Neither a model nor --demo."""
    code, _, err = run("scan")
    message = "spectrum: Invalid value for MODEL: give one MODEL, or --demo. Try 'spectrum scan --help'.\n"
    assert (code, err) == (2, message)


def test_the_model_as_an_argument(llama, run):
    """The same as --model."""
    assert run("scan", llama, "-q") == run("scan", "--model", llama, "-q")


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        (["--count", "3"], "spectrum select SCAN --count 3"),
        (["--min-snr=0.5"], "spectrum select SCAN --min-snr=0.5"),
        (["--max-params", "2.5B"], "spectrum select SCAN --max-params 2.5B"),
        (["--trainable", "30%"], "spectrum select SCAN --trainable 30%"),
        (["--per-type", "mlp.*=50"], "spectrum select SCAN --per-type 'mlp.*=50'"),
        (["--whole-layers"], "spectrum select SCAN --whole-layers"),
        (["--score", "ratio"], "spectrum select SCAN --score ratio"),
        (["--strategy", "random"], "spectrum select SCAN --strategy random"),
        (["--seed", "1"], "spectrum select SCAN --seed 1"),
        (["--lora-rank", "8"], "spectrum select SCAN --lora-rank 8"),
        (["--lora-alpha", "8"], "spectrum select SCAN --lora-alpha 8"),
        (["--rank-pattern"], "spectrum select SCAN --rank-pattern"),
        (["--qlora"], "spectrum select SCAN --qlora"),
        (["--published"], "spectrum import URL with the address of the result file."),
        (["--published-url", "http://x"], "spectrum import URL with the address of the result file."),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_an_option_that_moved_says_where(llama, run, words, instead):
    """One line, and the command line to run; the model may stand before or after it."""
    option = words[0].partition("=")[0]
    for line in ([*words, llama], [llama, *words]):
        assert run("scan", *line) == (2, "", f"spectrum: scan has no {option} any more. Run: {instead}\n")


def test_names_are_those_of_the_trainer(llama, run):
    """--names went without a successor."""
    message = "scan has no --names any more. A folder without its config.json keeps the names of the checkpoint."
    assert run("scan", llama, "--names", "checkpoint") == (2, "", f"spectrum: {message}\n")


BASE = "base_model: x\n"


@pytest.fixture
def decompositions(monkeypatch):
    """A list that gets an entry when matrices begin to be decomposed."""
    begun, really = [], decompose.decompose
    monkeypatch.setattr(decompose, "decompose", lambda *args, **words: begun.append(1) or really(*args, **words))
    return begun


def test_the_count_of_decompositions_counts(llama, run, decompositions):
    """A scan that succeeds begins once."""
    assert (run("scan", llama)[0], decompositions) == (0, [1])


@pytest.mark.parametrize(
    "case",
    [
        (None, ["--into", "c.yml"], "'c.yml' cannot be read"),
        ("a: [", ["--into", "c.yml"], "is not valid YAML"),
        (BASE + "adapter: lora\n", ["--into", "c.yml"], "trains an adapter"),
        (BASE + "fsdp: [full_shard]\n", ["--into", "c.yml"], "trains with FSDP"),
        (BASE, ["--into", "c.yml", "--model-class", "LlamaModel"], "type_of_model: LlamaModel"),
        (BASE + "unfrozen_parameters: &a [^a$]\nb: *a\n", ["--into", "c.yml"], "cannot be put into"),
        (BASE, ["--into", "/proc/self/status"], "cannot be written"),
        (None, ["--format", "mlx-lm", "--norms", "train"], "MLX-LM trains nothing beside its adapters"),
        (None, ["--format", "mlx-lm", "--model-class", "LlamaModel"], "How MLX-LM names the modules of LlamaModel"),
        (None, ["--format", "torchtune"], "torchtune's recipes train every weight"),
        (None, ["--modules", "mlp.upproj"], "No module type matches 'mlp.upproj'"),
        ("", ["--out", "c.yml/out"], "cannot be written"),
    ],
)
def test_failures_that_need_no_scores_come_before_the_first(llama, run, decompositions, case):
    """A config, a format, a pattern or a folder: one line, no matrix is decomposed and nothing is written."""
    config, words, message = case
    if config is not None:
        Path("c.yml").write_text(config)
    code, out, err = run("scan", llama, *words)
    assert (code, out, decompositions) == (1, "", [])
    assert message in err.splitlines()[-1]
    assert (Path("c.yml").read_text() if Path("c.yml").exists() else None) == config
    assert not list(Path().glob("snr_results/*"))


def test_a_long_selection_name_fails_before_the_first(tmp_path, run, decompositions):
    """The files of the scan could be written, but not that of the selection."""
    tensors = {"model.layers.0.w.weight": torch.randn(48, 64, generator=torch.manual_seed(1))}
    folder = write_checkpoint(tmp_path / ("n" * 200), {"_": tensors})
    code, _, err = run("scan", folder, "--modules", ",".join(["w"] * 40))
    assert (code, "File name too long" in err, decompositions) == (1, True, [])


def test_a_dry_run_rehearses_and_writes_nothing(llama, run):
    """It reports what the scan would fail with."""
    assert run("scan", llama, "--dry-run")[0] == 0
    assert not Path("snr_results").exists()
    assert run("scan", llama, "--dry-run", "--format", "mlx-lm", "--norms", "train")[0] == 1


SCOPES = ([], ["--all-modules"], ["--modules", "mlp.*"], ["--exclude", "mlp.*"], ["--noise-model", "mp"])
TREATMENTS = ([], ["--embeddings", "freeze"], ["--norms", "train"], ["--top", "50"], ["--format", "peft"])


def test_two_different_selections_never_share_a_file(llama, run):
    """Every pair of option sets: where the paths are equal, the texts are."""
    texts = {}
    for scope in SCOPES:
        for treatment in TREATMENTS:
            code, path, err = run("scan", llama, "-q", *scope, *treatment)
            assert code == 0, err
            text = Path(path.strip()).read_text()
            assert texts.setdefault(path, text) == text, (scope, treatment)
    assert len(texts) == len(SCOPES) * len(TREATMENTS)
    assert "snr_results/tiny-llama.top25.yaml\n" in texts
    assert "snr_results/tiny-llama.top25.peft.json\n" in texts


def test_samples_and_classes_have_files_of_their_own(mixtral, run):
    """--experts and --model-class change what is ranked and how it is named."""
    words = ([], ["--experts", "3"], ["--experts", "5"], ["--model-class", "MixtralModel"])
    paths = [run("scan", mixtral, "-q", *each)[1] for each in words]
    assert len({*paths}) == len(paths)
    assert paths[0] == "snr_results/moe.top25.yaml\n"


def test_demo(run, tmp_path):
    """The embedded checkpoint is made once in the user's cache, and its planted signal varies with depth."""
    assert run("scan", "--demo", "--quiet")[0] == 0
    folder = tmp_path / "cache" / "spectrum" / "demo-1" / "spectrum-demo"
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert 20e6 < size < 60e6
    assert len(list(folder.glob("*.safetensors"))) == 4
    scan = read_scan(Path("snr_results/spectrum-demo.json"))
    assert len(scan.parameters) == 24 * 7
    for kind in ("mlp.up_proj", "self_attn.q_proj"):
        scores = [item.snr for item in scan.parameters if kind in item.name]
        assert max(scores) > 1.5 * min(scores)
    assert _is_reused(run, "--demo")


def test_demo_in_a_cache_that_cannot_be_written(run, monkeypatch, tmp_path):
    """The cache's place is taken by a file."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    code, _, err = run("scan", "--demo")
    assert (code, "Set XDG_CACHE_HOME to a folder with room." in err) == (1, True)
