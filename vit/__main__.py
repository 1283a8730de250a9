"""``python -m vit`` is the command ``vit``."""

import sys

from vit.cli import main

sys.exit(main())
