"""Frames as trackers take them: RGB uint8 ``[H, W, 3]``, by the decoder that training uses."""

from ltr.data.image_loader import BadImage as BadImage
from ltr.data.image_loader import read_image as read_image
