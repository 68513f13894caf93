"""Published attackers, one file each, under the names that `AttackerSpec` and the command line use."""

from ..driver import BlackBoxAttacker
from .adv import AdvAttacker
from .argot import ArgotAttacker
from .textfooler import TextFoolerAttacker

ATTACKERS: dict[str, type[BlackBoxAttacker]] = {
    "adv": AdvAttacker,
    "textfooler": TextFoolerAttacker,
    "argot": ArgotAttacker,
}

__all__ = ["ATTACKERS", "AdvAttacker", "ArgotAttacker", "TextFoolerAttacker"]
