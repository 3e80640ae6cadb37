"""Tiny random-weight pipelines run by Hugging Face diffusers: what Kino's tokens, states, latents and frames are held against.

Importing this package keeps the Hugging Face libraries off the network; everything is built on the spot.
"""
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
