"""`python -m vaekit` is the `vaekit` command."""

from __future__ import annotations

from vaekit.cli import main

if __name__ == "__main__":
    main()
