"""``python -m pacavit_cli``, the same as the ``pacavit`` command."""

import sys

from pacavit_cli.main import main

sys.exit(main())
