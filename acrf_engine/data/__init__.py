"""From folders of pictures and captions to batches of latents.

`scan`, `captions` and `buckets` never import torch, because the preflight check uses them; `cache` and `batches` do.
"""
