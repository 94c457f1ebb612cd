"""The engine on DeepSpeed ZeRO-2; the only package that imports deepspeed."""
