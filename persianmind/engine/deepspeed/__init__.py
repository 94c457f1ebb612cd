"""The engine on DeepSpeed ZeRO-2; the only package that imports deepspeed."""

from persianmind.engine.deepspeed.backend import DeepSpeedBackend

BACKEND = DeepSpeedBackend()
