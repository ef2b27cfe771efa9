"""pix4d_watcher: a folder dropped here becomes a project on PIX4Dengine Cloud, once, whatever crashes."""

__version__ = "0.1.0"
