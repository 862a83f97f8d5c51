"""The device a stage computes on: the first GPU where there is one, otherwise the CPU."""

import torch


def best_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
