"""AscendSpeed's script of this name: shows the command of bc2-ckpt and runs it.

See docs/from-ascendspeed.md.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ascendspeed.ckpt import translate
from ascendspeed.native import carry_out

if __name__ == "__main__":
    sys.exit(carry_out(translate))
