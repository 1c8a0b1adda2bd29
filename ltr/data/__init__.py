"""From data set to batch: boxes, images, crops, augmentation, samplers, the sampler state, the loader."""
