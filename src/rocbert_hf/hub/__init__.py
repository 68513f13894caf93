"""What travels to the Hub with a checkpoint: its description, and its model card."""

from .description import describe, overview
from .model_card import model_card

__all__ = ["describe", "model_card", "overview"]
