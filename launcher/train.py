"""The training entry:  deepspeed launcher/train.py --deepspeed ds_configs/zero2.json

`persianmind train RECIPE` is the same with a quiet screen; `python launcher/train.py --deepspeed ...` runs it
in one process; --help lists the flags.
"""

import sys
from pathlib import Path

# `deepspeed launcher/train.py` puts launcher/ on the path, not the project.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from persianmind.launch.rank import main

if __name__ == "__main__":
    main()
