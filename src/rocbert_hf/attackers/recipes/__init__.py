"""Published attackers, a file each, by the name that `AttackerSpec` and the command line know them by."""

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
