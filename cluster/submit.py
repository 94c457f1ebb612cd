r"""Training on Ray: this machine, or a cluster.

    python cluster/submit.py --local --recipe tiny --cpu-workers 2
    python cluster/submit.py --address http://127.0.0.1:8265 --recipe persianmind-7b \\
        --nodes 2 --gpus-per-node 4 --output /shared/runs/persianmind-7b
    ray job submit --working-dir . -- python cluster/submit.py --recipe persianmind-7b --nodes 2 ...
    python cluster/submit.py status|logs|stop ID --address http://127.0.0.1:8265

The same command again resumes, or says that all is done. docs/cluster.md begins at bare machines.
"""

import sys
from pathlib import Path

# Started as a script, only cluster/ itself is on the path.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from persianmind.cluster.command import main

if __name__ == "__main__":
    main()
