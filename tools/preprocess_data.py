"""AscendSpeed's tools/preprocess_data.py: shows the command of bc2-data and runs it.

See docs/from-ascendspeed.md.
"""

import sys

from ascendspeed.data import translate
from ascendspeed.native import carry_out

if __name__ == "__main__":
    sys.exit(carry_out(translate))
