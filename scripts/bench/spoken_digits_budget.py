"""Prune a DS-CNN for spoken digits until its measured median latency is within the budget; prints JSON.

    scripts/bench/spoken_digits_budget.py --latency "75% of dense" --max-drop 4pp

Needs the real data (see spoken_digits.py). Latency is measured on this machine: ONNX Runtime, one thread.
"""

from __future__ import annotations

import sys

from budget_run import main

if __name__ == "__main__":
    sys.exit(main("spoken_digits.py:SpokenDigits", description=__doc__, project="{}", epochs=10))
