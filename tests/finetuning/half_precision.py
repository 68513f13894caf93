"""fp16 on a CPU as accelerate sets it up on a GPU: autocast and a `GradScaler`. Of itself it leaves a CPU in float32."""

import torch
from transformers import Trainer


def in_fp16(trainer: Trainer, monkeypatch, scale: float, **options: float) -> Trainer:
    monkeypatch.setattr(trainer.accelerator.state, "_mixed_precision", "fp16")
    trainer.accelerator.native_amp = True
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale, **options)
    return trainer
