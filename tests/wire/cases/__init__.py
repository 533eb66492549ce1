"""The tables of verdicts: what is sent, what it must lead to, and which clause says so. Data alone; the
runners are test_requests.py, test_answers.py and test_h2_cases.py."""
from . import fields, framing, lines, paths  # noqa: F401
from . import h2_frames, h2_hpack, h2_messages, h2_streams  # noqa: F401
from .h2_model import H2_TABLE  # noqa: F401
from .model import TABLE  # noqa: F401
