"""Names to backbones."""

from __future__ import annotations

from config.registry import Registry

BACKBONES = Registry("backbone", "ltr.models.backbone")
"""Backbones take images ``[B, 3, H, W]`` and return features ``[B, channels, H / stride, W / stride]``.

Each is a module built without arguments, with the attributes ``channels``, ``stride`` and ``imagenet``,
the address of torchvision's weights for its ``body``, or None.
"""
