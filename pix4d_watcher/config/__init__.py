"""Typed settings: load, check everything at once, explain every field.

Owns the configuration file, its documentation and where secrets come from. Knows nothing of what the settings are used
for; imports only `pix4d_watcher.core`.
"""

from pix4d_watcher.config.crosscheck import root_text, root_trouble, within
from pix4d_watcher.config.explain import explain
from pix4d_watcher.config.fields import CHECK_NAMES
from pix4d_watcher.config.generate import example_yaml, json_schema
from pix4d_watcher.config.loader import SETTINGS_KEYS, examine, find_config, load
from pix4d_watcher.config.secrets import ClientCredentials, load_client
from pix4d_watcher.config.settings import (
    AdvancedSettings,
    CloudSettings,
    ProjectSettings,
    RootSettings,
    Settings,
    UploadSettings,
)

__all__ = [
    "CHECK_NAMES",
    "SETTINGS_KEYS",
    "AdvancedSettings",
    "ClientCredentials",
    "CloudSettings",
    "ProjectSettings",
    "RootSettings",
    "Settings",
    "UploadSettings",
    "examine",
    "example_yaml",
    "explain",
    "find_config",
    "json_schema",
    "load",
    "load_client",
    "root_text",
    "root_trouble",
    "within",
]
