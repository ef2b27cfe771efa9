"""Run the command line as `python -m pix4d_watcher`."""

from pix4d_watcher.cli.app import main

if __name__ == "__main__":
    main()
