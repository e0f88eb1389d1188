"""`spectrum check`: is everything still true?"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from spectrum.cli.app import command
from spectrum.cli.choice import read_choice
from spectrum.cli.options import (
    ChoiceOptions,
    HubOptions,
    ModuleOptions,
    ScanFile,
    model_option,
    output_option,
    scored_option,
)
from spectrum.cli.output import note
from spectrum.spectra.snr import NoiseModel


@command(example="spectrum check snr_results/Meta-Llama-3-8B.json --config axolotl.yml --top 25")
def check(
    scan_file: ScanFile,
    choosing: ChoiceOptions,
    modules: ModuleOptions,
    hub: HubOptions,
    model: Annotated[
        str | None,
        model_option(
            "--model", metavar="MODEL", help="What the scan should be of: owner/name[@revision], a folder or file."
        ),
    ] = None,
    config: Annotated[
        Path | None, model_option("--config", metavar="FILE", help="Axolotl config, or a list that select wrote.")
    ] = None,
    noise_model: Annotated[
        NoiseModel | None,
        scored_option("--noise-model", help="By default as the config's header says, or else as in the scan."),
    ] = None,
    transformers: Annotated[
        str | None,
        model_option("--transformers", metavar="VERSION", help="The trainer's; by default the one installed here."),
    ] = None,
    strict: Annotated[bool, output_option("--strict", help="Fail on warnings, too.")] = False,
    format: Annotated[  # noqa: A002  the option's name
        Literal["text", "json", "github", "junit"], output_option("--format", help="How the findings are printed.")
    ] = "text",
) -> None:
    """Check that a scan is sound, still belongs to its model, and that a config trains exactly its selection.

    Which selection that is, the header above the config's list says; if any option that chooses is given, the options
    say it instead.
    """
    choice = read_choice(choosing, modules)
    if model is None and hub != HubOptions():
        raise typer.BadParameter("they belong to --model.", param_hint="--revision, --token")
    from spectrum.checking import FORMATS, Trainer, report  # noqa: PLC0415  it imports yaml

    given = choosing != ChoiceOptions() or any((modules.modules, modules.exclude))
    found = report(
        scan_file,
        config=config,
        model=model,
        revision=hub.revision,
        token=hub.token,
        trainer=Trainer(choice if given else None, noise_model, transformers),
        notify=note,
    )
    found = replace(found, strict=strict)
    print(FORMATS[format](found), end="")
    raise typer.Exit(1 if found.failed else 0)
