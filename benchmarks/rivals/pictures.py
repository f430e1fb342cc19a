"""Data sets as PyTorch's tutorials make them. Users import torchvision's, so these lines are not counted as theirs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

Array = np.ndarray[Any, Any]


class Pictures(Dataset[tuple[Tensor, int]]):
    """Do for a sample what torchvision's MNIST with ToTensor and Normalize does, step for step."""

    def __init__(self, images: Array, labels: Array, mean: float, deviation: float) -> None:
        self.images, self.labels = torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))
        self.mean, self.deviation = mean, deviation

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = Image.fromarray(self.images[index].numpy())
        tensor = torch.from_numpy(np.array(picture, np.uint8, copy=True)).view(1, *picture.size[::-1]).contiguous()
        tensor = tensor.to(torch.float32).div(255)
        mean, deviation = (torch.as_tensor([number]).view(-1, 1, 1) for number in (self.mean, self.deviation))
        return tensor.sub_(mean).div_(deviation), int(self.labels[index])


def make_datasets(data: dict[str, Array]) -> tuple[Dataset[Any], Dataset[Any]]:
    """Return the training and the validation part: pictures, or rows of numbers that are scaled once."""
    if data["x_train"].ndim > 2:
        mean, deviation = float(data["mean"]), float(data["deviation"])
        return (
            Pictures(data["x_train"], data["y_train"], mean, deviation),
            Pictures(data["x_val"], data["y_val"], mean, deviation),
        )
    train, validation = (
        TensorDataset(
            torch.from_numpy((data[f"x_{part}"] - data["mean"]) / data["deviation"]).float(),
            torch.from_numpy(data[f"y_{part}"]).long(),
        )
        for part in ("train", "val")
    )
    return train, validation
