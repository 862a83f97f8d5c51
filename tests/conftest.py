import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # linear_truth.py, shared by the tests of several rooms
