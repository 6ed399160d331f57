"""`python -m diffnas`."""

from diffnas.cli.main import main

raise SystemExit(main())
