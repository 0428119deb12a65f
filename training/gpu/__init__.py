"""A GPU for some minutes: what is packed at home, done there on a bare machine, and published at home again.

``pack`` and ``publish`` run at home, ``python -m training.gpu`` and its steps where the GPU is: these need PyTorch,
torchvision, NumPy, Pillow, safetensors, timm and tqdm alone.
"""
