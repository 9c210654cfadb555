"""`python -m beingh0_edge` is the command `beingh0`."""

import sys

from .cli import main

sys.exit(main())
