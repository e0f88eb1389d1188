"""The selection put into an Axolotl config: every other byte stays, and what contradicts it is mended or told."""

import os
import time
import warnings
from pathlib import Path

import pytest
import yaml
from exporting.models import example, model_of, scan_of
from exporting.test_axolotl_lora import TRAINING

from spectrum.errors import SpectrumError
from spectrum.exporting import LoraOptions, to_axolotl, to_axolotl_lora
from spectrum.exporting.axolotl_config import lora_settings, put_into_axolotl, validate_target
from spectrum.exporting.config_text import read_config_text
from spectrum.results import write_scan
from spectrum.selection import select_top

BASE = """\
# my config
base_model: owner/Tiny_Qwen2   # the small one
datasets:
    - path: "a"      # four spaces, kept
      type: alpaca

learning_rate:   1e-5
"""


def _full(text, place="c.yml", top=50, **choice):
    scan = example()
    selection = select_top(scan, top, **choice)
    return put_into_axolotl(text, to_axolotl(selection, scan), selection, scan, place=place)


def _lora(text, **options):
    scan = example()
    selection = select_top(scan, 50)
    return put_into_axolotl(
        text, to_axolotl_lora(selection, scan, LoraOptions(**options))[0], selection, scan, place="c.yml"
    )


def _block(top=50, **choice):
    scan = example()
    return to_axolotl(select_top(scan, top, **choice), scan)


def test_appended_where_there_is_none():
    """At the end, behind everything, which stays byte for byte."""
    assert _full(BASE).text == BASE + _block()
    assert _full(BASE.rstrip("\n")).text == BASE + _block()


def test_replaced_where_it_stands():
    """Another selection and its header go; comments around it, order and spacing stay."""
    text = f"a: 1 # x\n# above\n{_block(25, embeddings='freeze')}\n# below\n{BASE}"
    edited = _full(text)
    assert edited.text == f"a: 1 # x\n# above\n{_block()}\n# below\n{BASE}"
    assert edited.messages == ()


@pytest.mark.parametrize(
    "old",
    [
        "unfrozen_parameters: []  # none\n",
        "unfrozen_parameters:\n",
        "unfrozen_parameters:\n  - ^a$\n  # inside\n  - ^b$ # last\n",
        "unfrozen_parameters: [^a$,\n  ^b$]\n",
        '"unfrozen_parameters":\n- ^a$\n',
        "unfrozen_parameters: ~",
    ],
)
def test_every_layout_of_a_list(old):
    """Block, flow, empty, over several lines, without a newline at the end of the file."""
    text = f"{BASE}# mine\n{old}"
    after = _full(text).text
    assert after == f"{BASE}# mine\n{_block()}"
    behind = f"{old}\n# next\nz: 1\n" if old.endswith("\n") else f"{old}\n\n# next\nz: 1\n"
    assert _full(f"{BASE}{behind}").text == f"{BASE}{_block()}\n# next\nz: 1\n"


CONFLICTS = """\
plugins:
  - axolotl.integrations.liger.LigerPlugin   # stays
  - axolotl.integrations.spectrum.SpectrumPlugin
spectrum_top_fraction: 0.5
gradient_checkpointing_kwargs:
  use_reentrant: true # why not
fsdp_config:
  fsdp_offload_params: true
# end
"""


@pytest.mark.parametrize("text", [BASE, BASE + CONFLICTS, (BASE + CONFLICTS).replace("\n", "\r\n"), "\ufeff" + BASE])
@pytest.mark.parametrize("put", [_full, _lora])
def test_twice_gives_the_same_bytes(put, text):
    """Also with Windows line ends and a byte order mark; the second time nothing is said."""
    once = put(text)
    assert once.text != text
    twice = put(once.text)
    assert (twice.text, twice.messages) == (once.text, ())
    assert ("\r\n" in text) == ("\r\n" in once.text)
    assert once.text.count("\n") == once.text.count("\r\n") or "\r\n" not in text


def test_conflicts_are_mended(axolotl_config):
    """The plugin goes, checkpointing and FSDP are set; the rest stands; Axolotl refused it before and takes it now."""
    edited = _full(BASE + CONFLICTS)
    assert (
        edited.text
        == BASE
        + (
            "plugins:\n  - axolotl.integrations.liger.LigerPlugin   # stays\n"
            "gradient_checkpointing_kwargs:\n  use_reentrant: false # why not\n"
            "fsdp_config:\n  fsdp_use_orig_params: true\n  fsdp_offload_params: true\n# end\n"
        )
        + _block()
    )
    plugin, checkpointing, fsdp = edited.messages
    assert plugin.startswith("Removed 'axolotl.integrations.spectrum.SpectrumPlugin' and 'spectrum_top_fraction': ")
    assert checkpointing.startswith("'gradient_checkpointing_kwargs.use_reentrant' is now false: Axolotl refuses it")
    assert fsdp.startswith("'fsdp_config.use_orig_params' is now true: FSDP 1 cannot")
    before = TRAINING | {"unfrozen_parameters": ["^a$"], "gradient_checkpointing_kwargs": {"use_reentrant": True}}
    with pytest.raises(ValueError, match="`use_reentrant` must be false when used with partially frozen model"):
        axolotl_config(before)
    taken = axolotl_config(TRAINING | yaml.safe_load(edited.text) | {"plugins": None, "datasets": TRAINING["datasets"]})
    assert taken.fsdp_config.use_orig_params is True
    assert taken.gradient_checkpointing_kwargs == {"use_reentrant": False}


def test_the_plugin_would_need_original_parameters(spectrum_plugin):
    """The reason for mending FSDP, as Axolotl states it for its own plugin."""
    from axolotl.integrations.spectrum.args import SpectrumArgs

    data = {"fsdp": ["full_shard"], "fsdp_config": {"a": 1}, "plugins": ["x.SpectrumPlugin"]}
    with pytest.raises(ValueError, match="cannot be used together when `use_orig_params=False`"):
        SpectrumArgs(**data)


def test_axolotl_freezes_adapters_beside_a_selection(freeze_layers_except, peft):
    """The reason why an adapter beside unfrozen_parameters is an error: nothing would be trained."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(model_of("llama"), peft.LoraConfig(target_modules=["q_proj"]))
    freeze_layers_except(model, yaml.safe_load(_block())["unfrozen_parameters"])
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("settings", "after"),
    [
        ("fsdp_config: {}\nfsdp: [full_shard]\n", "fsdp_config: {use_orig_params: true}\nfsdp: [full_shard]\n"),
        ("fsdp_config: {offload_params: true}\n", "fsdp_config: {use_orig_params: true, offload_params: true}\n"),
        ("fsdp_config:\n  use_orig_params: false\n", "fsdp_config:\n  use_orig_params: true\n"),
        ("fsdp_config:\n  use_orig_params: true\n", None),
        ("fsdp_config:\n  fsdp_version: 2\n  a: 1\n", None),
        ("fsdp_version: 2\nfsdp_config:\n  offload_params: true\n", None),
        (
            "gradient_checkpointing_kwargs: {use_reentrant: yes}\n",
            "gradient_checkpointing_kwargs: {use_reentrant: false}\n",
        ),
        ("plugins: [a.B, x.SpectrumPlugin, c.D]\n", "plugins: [a.B, c.D]\n"),
        ("plugins:\n- x.SpectrumPlugin\n", ""),
    ],
)
def test_layouts_of_what_is_mended(settings, after):
    """Flow and block mappings; what is right already is left alone."""
    edited = _full(BASE + settings)
    assert edited.text == BASE + (settings if after is None else after) + _block()
    assert bool(edited.messages) == (after is not None)


def test_what_only_the_user_knows_is_told():
    """Another model; a folder with the model's name is taken for it."""
    (another,) = _full(BASE.replace("owner/Tiny_Qwen2", "owner/Other")).messages
    assert another.startswith("base_model is 'owner/Other', the scan is of 'owner/Tiny_Qwen2'. Scan that model; ")
    assert _full(BASE.replace("owner/Tiny_Qwen2", "./models/Tiny_Qwen2")).messages == ()


@pytest.mark.parametrize(
    ("put", "settings", "told"),
    [
        (_full, "load_in_4bit: true\n", "load_in_4bit: quantised weights have no gradient"),
        (
            _full,
            "x: &x {use_reentrant: true}\ngradient_checkpointing_kwargs:\n  <<: *x\n",
            "use_reentrant: true, which Axolotl refuses",
        ),
        (_lora, "load_in_4bit: true\nfsdp_config: {a: 1}\n", ""),
    ],
)
def test_what_is_not_mended_is_told(put, settings, told):
    """Whatever check would find afterwards; adapters have fewer conflicts."""
    edited = put(BASE + settings)
    assert settings in edited.text or not told
    assert [message[: len(told)] for message in edited.messages] == ([told] if told else [])


def test_what_is_frozen_again_is_told():
    """freeze_mm_modules comes after the selection in Axolotl."""
    scan = scan_of("qwen2_vl")
    selection = select_top(scan, 50)
    base = BASE.replace("Tiny_Qwen2", "qwen2_vl")
    for setting, said in (("true", True), ("false", False)):
        text = f"{base}freeze_mm_modules: {setting}\n"
        told = put_into_axolotl(text, to_axolotl(selection, scan), selection, scan, place="c.yml").messages
        assert any("freezes 'model.visual." in message for message in told) == said


@pytest.mark.parametrize(("deepspeed", "said"), [("zero3_bf16", True), ("zero2", False)])
def test_rows_and_zero_3(deepspeed, said):
    """A parameter that is split flat has no rows to freeze."""
    scan = example()
    selection = select_top(scan, 50)
    addition = "unfrozen_parameters:\n- ^lm_head.weight$[70:]\n"
    text = f"{BASE}deepspeed: deepspeed_configs/{deepspeed}.json\n"
    told = put_into_axolotl(text, addition, selection, scan, place="c.yml").messages
    assert any("ZeRO-3 with a range of rows" in message for message in told) == said


def test_a_comment_between_header_and_list_stays():
    """It is not ours; the old header, cut off from its list, stays with it."""
    text = BASE + "# Spectrum: old\n# mine\nunfrozen_parameters:\n- ^a$\n"
    assert _full(text).text == BASE + "# Spectrum: old\n# mine\n" + _block()


def test_a_block_of_text_is_replaced():
    """lora_target_modules may be one expression over several lines; what follows stays."""
    text = BASE + "lora_target_modules: >-\n  a|\n  b\n# next\nz: 1\n"
    edited = _lora(text)
    assert edited.text.endswith("- model.embed_tokens\n# next\nz: 1\n")


def test_two_lists_become_one():
    """At the place of the first; another key that occurs twice is left alone."""
    text = BASE + "unfrozen_parameters: [^a$]\nz: 1\nunfrozen_parameters:\n- ^b$\nz: 2\n"
    assert _full(text).text == BASE + _block() + "z: 1\nz: 2\n"


def test_an_alias_in_the_list_is_replaced():
    """Its anchor stands elsewhere and stays."""
    text = BASE + "x: &x ^a$\nunfrozen_parameters:\n- *x\nz: 1\n"
    assert _full(text).text == BASE + "x: &x ^a$\n" + _block() + "z: 1\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BASE + "adapter: lora\n", "trains an adapter ('lora'), and unfrozen_parameters would freeze it"),
        (BASE + "fsdp: [full_shard]\n", "trains with FSDP, and frozen parameters need 'use_orig_params: true'"),
        (
            BASE + "type_of_model: Qwen3ForCausalLM\n",
            "the scan names the parameters of Qwen2ForCausalLM. Add the line 'type_of_model: Qwen2ForCausalLM', or",
        ),
        ("a: [\n", "is not valid YAML"),
        (
            "a: !!python/object/apply:os.system [x]\nbase_model: y\n",
            "is not valid YAML: could not determine a constructor",
        ),
        (
            "a: 1\n---\nb: 2\n",
            "is not valid YAML: expected a single document in the stream, but found another document. See line 2.",
        ),
        ("{base_model: x}\n", "Paste the lines instead"),
        ("{base_model: x, unfrozen_parameters: [^a$]}\n", "Paste the lines instead"),
        ("{unfrozen_parameters: [^a$],\nbase_model: x}\n", "Paste the lines instead"),
        ("{base_model: x, unfrozen_parameters: [^a$],\nz: 1}\n", "Paste the lines instead"),
        ("- a\n", "is not a mapping"),
        ("", "is not a mapping"),
        ("just text\n", "is not a mapping"),
        ("a: 1\n", "has no base_model, so it is not an Axolotl config"),
        ("  base_model: x\n", "Paste the lines instead"),
        ("  base_model: x\n  unfrozen_parameters: [^a$]\n", "Paste the lines instead"),
        ("base_model: x\nlora_r: 1\nunfrozen_parameters: &l [^a$]\nother: *l\n", "Paste the lines instead"),
        ("? [a, b]\n: 1\nbase_model: x\n", "'c.yml'"),
        ("a: " + "[" * 3000 + "]" * 3000 + "\n", "is nested more than 50 levels deep. See line 1."),
        ("base_model: x\ntime: 2001-99-99\n", "is not valid YAML"),
        ("a: \x00\n", "is not valid YAML"),
        (f"a: 1{':1' * 100_000}\n", "has a number of 200,001 characters. See line 1."),
        ("d: &d {unfrozen_parameters: [a]}\n<<: *d\nbase_model: x\n", "takes 'unfrozen_parameters' from an anchor"),
    ],
)
def test_what_cannot_be_edited(text, message):
    """One clear line that says that the file was left alone."""
    with pytest.raises(SpectrumError) as caught:
        _full(text)
    assert message in str(caught.value)
    assert "eft as it is" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        ("a: [", {}, "is not valid YAML"),
        ("a: 1\n", {}, "has no base_model"),
        (BASE + "adapter: lora\n", {}, "trains an adapter"),
        (BASE + "adapter: qlora\n", {"adapters": True}, "Pass --qlora as well"),
        (BASE + "fsdp: [full_shard]\n", {}, "trains with FSDP"),
        (BASE + "d: &d {lora_r: 1}\n<<: *d\n", {"adapters": True}, "takes 'lora_r' from an anchor"),
        (BASE, {}, None),
        (BASE + "adapter: lora\n", {"adapters": True}, None),
        (BASE + "adapter: qlora\n", {"adapters": True, "four_bit": True}, None),
        (BASE + CONFLICTS, {}, None),
    ],
)
def test_a_target_is_known_before_the_scan(text, words, message):
    """Whatever would be refused after it, without a selection; what can be mended passes; nothing is written."""
    Path("c.yml").write_text(text)
    if message is None:
        validate_target(Path("c.yml"), **words)
    else:
        with pytest.raises(SpectrumError, match=message):
            validate_target(Path("c.yml"), **words)
    assert (Path("c.yml").read_text(), list(Path().iterdir())) == (text, [Path("c.yml")])


@pytest.mark.parametrize("text", ["a: [", "base_model: x\nadapter: lora\n", None])
def test_scan_refuses_a_target_before_it_starts(run, llama, text):
    """Nothing is decomposed and nothing is stored."""
    if text is not None:
        Path("c.yml").write_text(text)
    code, out, err = run("scan", "--model", llama, "--into", "c.yml")
    assert (code, out, "'c.yml' " in err, Path("snr_results").exists()) == (1, "", True, False)


def test_a_target_that_cannot_be_replaced():
    """Readable, in a folder where no file can be made."""
    with pytest.raises(SpectrumError, match="cannot be written"):
        validate_target(Path("/proc/self/status"))
    os.mkfifo("pipe.yml")
    for name in ("pipe.yml", "nowhere.yml", "."):
        with pytest.raises(SpectrumError, match=f"'{name}' cannot be read: "):
            validate_target(Path(name))


def test_an_anchor_in_the_list_is_refused():
    """Others use the list: replacing it would leave their alias without an anchor."""
    text = BASE + "unfrozen_parameters: &list [^a$]\nother: *list\n"
    with pytest.raises(SpectrumError, match="is written in a way that the selection cannot be put into"):
        _full(text)


def _bomb(merge):
    lines = ["a0: &a0 {k: v}"] + [f"a{n}: &a{n} {{{merge}: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 12)]
    return "\n".join(lines) + "\n" + BASE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (_bomb("k"), "expands to more than 200,000 values"),
        (_bomb("<<"), "expands to more than 200,000 values"),
        (f"a: 1{':1' * 500_000}\n{BASE}", "has a number of 1,000,001 characters"),
        (f"{BASE}a: {'x' * 20_000_000}\n", "cannot be read: "),
    ],
    ids=["aliases", "merges", "base 60", "a long line"],
)
@pytest.mark.parametrize("check", [validate_target, lambda path: _full(read_config_text(path))])
def test_hostile_configs_end_at_once(text, message, check):
    """Before a scan as after it: a small file cannot stand for much work, a large one is not read."""
    Path("c.yml").write_text(text)
    begin = time.process_time()
    with pytest.raises(SpectrumError, match=message):
        check(Path("c.yml"))
    assert time.process_time() - begin < 5


def test_time_is_linear_in_the_keys():
    """Forty thousand top-level keys, all of which the plugin's removal takes out: twice the keys, twice the time."""
    plugin = "plugins: [x.SpectrumPlugin]\n"

    def _seconds(count):
        text = BASE + plugin + "".join(f"spectrum_{number}: 1\nkey_{number}: 2\n" for number in range(count))
        begin = time.process_time()
        assert "spectrum_1:" not in _full(text).text
        return time.process_time() - begin

    assert _seconds(20_000) < 10 * (_seconds(4000) + 0.1)


def test_lora_keeps_what_the_user_set():
    """Dropout and comments; the lists come at the end, and stay where they are the next time."""
    text = BASE + "adapter: lora # mine\nlora_r: 8 # small\nlora_dropout: 0.1\nz: 1\n"
    edited = _lora(text, rank=8)
    assert edited.text.startswith(text + "lora_alpha: 16\n# Spectrum: top 50 %")
    assert edited.messages == ()
    edited = _lora(text, rank=4)
    assert "lora_r: 4 # small\n" in edited.text
    assert edited.messages == ("'lora_r' was 8 and is now 4.",)
    assert lora_settings(text, "c.yml") == (8, None)


def test_lora_removes_what_chooses_other_modules(axolotl_config):
    """lora_target_linear would add all linear layers, unfrozen_parameters freeze the adapters."""
    text = BASE + _block() + "lora_target_linear: true\npeft_layers_to_transform: [1]\nz: 1\n"
    edited = _lora(text)
    values = yaml.safe_load(edited.text)
    assert not {"unfrozen_parameters", "lora_target_linear", "peft_layers_to_transform"} & values.keys()
    assert "# Spectrum" not in edited.text.partition("adapter: lora")[0]
    assert len(edited.messages) == 3
    assert axolotl_config(TRAINING | values | {"z": None}).lora_target_modules == values["lora_target_modules"]


def test_qlora_is_not_taken_for_lora():
    """A config that trains in 4 bit needs the checks of --qlora."""
    with pytest.raises(SpectrumError, match="has adapter: qlora. Pass --qlora as well"):
        _lora(BASE + "adapter: qlora\n")
    assert yaml.safe_load(_lora(BASE + "adapter: qlora\n", four_bit=True).text)["load_in_4bit"] is True


def test_from_the_command_line(run, llama):
    """scan and select; the file keeps its mode; the second time it is not touched; stdout stays empty for select."""
    config = Path("config.yml")
    config.write_text("base_model: ./tiny-llama\n# comment\nadapter:\n")
    config.chmod(0o640)
    code, _, err = run("scan", "--model", llama, "--top", "50", "--into", config)
    assert (code, "Wrote the selection into 'config.yml'." in err) == (0, True)
    scanned = config.read_text()
    assert scanned.startswith("base_model: ./tiny-llama\n# comment\nadapter:\n# Spectrum: top 50 %")
    before = config.stat()
    code, out, err = run("select", "snr_results/tiny-llama.json", "--top", "50", "--into", config)
    assert (code, out, err) == (0, "", "This selection was already in 'config.yml'.\n")
    assert (config.read_text(), config.stat().st_mode, config.stat().st_mtime_ns) == (
        scanned, before.st_mode, before.st_mtime_ns,
    )  # fmt: skip


def test_parameters_have_no_dropout(axolotl_config):
    """Axolotl refuses it beside lora_target_parameters, so there it is set to 0."""
    scan = scan_of("mixtral")
    selection = select_top(scan, 50)
    addition = to_axolotl_lora(selection, scan, LoraOptions())[0]
    text = BASE + "lora_dropout: 0.1\n"
    with pytest.raises(ValueError, match="lora_dropout must be 0 when lora_target_parameters is set"):
        axolotl_config(TRAINING | yaml.safe_load(addition) | {"lora_dropout": 0.1})
    edited = put_into_axolotl(text, addition, selection, scan, place="c.yml")
    assert yaml.safe_load(edited.text)["lora_dropout"] == 0.0
    assert "'lora_dropout' was 0.1 and is now 0.0." in edited.messages


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (
            ["--into", "nowhere.yml"],
            1,
            "'nowhere.yml' cannot be read: there is no such file. Give the config that Axolotl",
        ),
        (["--into", "pipe.yml"], 1, "'pipe.yml' cannot be read: It is no"),
        (["--into", "latin.yml"], 1, "'latin.yml' is not UTF-8 text."),
        (["--into", "x.yml", "--format", "peft"], 2, "it takes --format axolotl or axolotl-lora"),
        (["--into", "x.yml", "--out", "y"], 2, "give either --out or --into"),
        (["--rank-pattern"], 2, "--format axolotl makes no adapters; these do: axolotl-lora, peft, mlx-lm"),
        (["--format", "peft", "--lora-rank", "0"], 2, "'--lora-rank'"),
    ],
)
def test_wrong_use(run, words, code, message):
    """One line, the right exit code."""
    Path("latin.yml").write_bytes(b"a: \xff\n")
    os.mkfifo("pipe.yml")
    write_scan(example(), Path("scan.json"))
    got, out, err = run("select", "scan.json", *words)
    assert (got, out, err.count("\n")) == (code, "", 1)
    assert message in err
