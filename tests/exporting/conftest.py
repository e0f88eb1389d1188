"""The trainers' own code; it skips the tests where it is not installed, and fails them where it must be."""

import importlib
import warnings

import pytest
from conftest import missing


def _imported(name: str):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they and accelerate say while they are imported
        try:
            return importlib.import_module(name)
        except ImportError as error:
            missing(name.partition(".")[0], f"pip install it, see the README ({error})")


@pytest.fixture(scope="session")
def freeze_layers_except():
    """Axolotl's freeze function."""
    return _imported("axolotl.utils.freeze").freeze_layers_except


@pytest.fixture(scope="session")
def spectrum_plugin():
    """Axolotl's plugin class."""
    return _imported("axolotl.integrations.spectrum").SpectrumPlugin


@pytest.fixture(scope="session")
def axolotl_config():
    """Axolotl's validation of a config: a function of its keys and values."""
    schema = _imported("axolotl.utils.schemas.config").AxolotlInputConfig

    def validated(values):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return schema(**values)

    return validated


@pytest.fixture(scope="session")
def peft():
    """PEFT."""
    return _imported("peft")
