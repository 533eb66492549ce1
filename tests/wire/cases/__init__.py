"""The table of verdicts: what is sent, what it must lead to, and which clause says so. Data alone; the
runners are test_requests.py and test_answers.py."""
from . import fields, framing, lines, paths  # noqa: F401
from .model import TABLE  # noqa: F401
