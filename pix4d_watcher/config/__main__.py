"""Write the example file and the JSON Schema: `python -m pix4d_watcher.config [DIRECTORY]` (default: config).

Where a README.md lies beside that directory, the table of settings in it is written anew, too.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from pix4d_watcher.config.generate import EXAMPLE_NAME, SCHEMA_NAME, example_yaml, json_schema, settings_table


def main(directory: Path) -> None:
    """Write both files into a directory, which is made where it is missing."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / EXAMPLE_NAME).write_text(example_yaml(), encoding="utf-8")
    schema = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    (directory / SCHEMA_NAME).write_text(schema, encoding="utf-8")
    readme = directory.parent / "README.md"
    if readme.is_file():
        readme.write_text(with_settings(readme.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"wrote {directory / EXAMPLE_NAME} and {directory / SCHEMA_NAME}\n")


def with_settings(text: str) -> str:
    """Return the text with the table between the two marks written anew; without the marks it stays as it is."""
    return re.sub(
        r"(<!-- settings -->\n).*?(<!-- end of settings -->)",
        lambda found: found[1] + settings_table() + found[2],
        text,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "config"))
