"""A strict stand-in for the PIX4Dengine Cloud REST API and its S3 bucket, on one port, for tests and the demonstration.

It accepts what the service's documents describe and refuses everything else, verifies every signature and every byte,
keeps a ledger of what was applied, and goes wrong in scripted ways. Imports nothing from the rest of the package and
nothing but the standard library. State lives in memory; the contents of objects lie in a data directory.
"""

from pix4d_watcher.emulator.server import Emulator, serve
from pix4d_watcher.emulator.settings import Settings

__all__ = ["Emulator", "Settings", "serve"]
