"""Training a LoRA adapter on local data. torch lives here and nowhere above."""
