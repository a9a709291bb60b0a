"""AscendSpeed's pretrain_baichuan.py: shows the command of bc2-train and runs it.

The launch scripts in tools/baichuan2/ call it. See docs/from-ascendspeed.md.
"""

import sys

from ascendspeed.native import carry_out
from ascendspeed.train import translate

if __name__ == "__main__":
    sys.exit(carry_out(translate))
