"""Readers, one file each: `read(path, **options)` yields records and Rejects in file order."""

import importlib
import pkgutil
from types import ModuleType

from data_pipeline.errors import BadInput, did_you_mean


def find_reader(name: str, key: str = "source") -> ModuleType:
    """Returns the module data_pipeline/sources/NAME.py; raises BadInput that lists those there are."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    if name not in names:
        raise BadInput(f"{key}={name}: no such reader; there is {', '.join(names)}{did_you_mean(name, names)}")
    return importlib.import_module(f"data_pipeline.sources.{name}")
