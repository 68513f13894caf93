"""The text of a pretraining run: sources, sentences and shuffled batches, streamed and resumed exactly."""
