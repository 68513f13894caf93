"""`python -m rocbert_hf.cli` is `rocbert`."""

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
