"""What travels to the Hub with a checkpoint: what is told of it, and its model card."""

from .description import describe, model_card, overview

__all__ = ["describe", "model_card", "overview"]
