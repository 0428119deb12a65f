"""The suite `imagenet`: real networks that nobody here trained, on the photos of the NRP paper's own tables."""
