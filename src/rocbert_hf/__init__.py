"""RoCBERT for Hugging Face transformers: a Chinese BERT that stays right under adversarial text."""

__version__ = "0.1.0"
