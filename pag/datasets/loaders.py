"""The data sets: one loader module each, named here and imported when it is used.

A new data set is one module with ``read(config: DataConfig, seed: int) -> Source`` and one line in LOADERS. The seed is
for a loader that draws the images within the limits before it decodes them.
"""

LOADERS = {
    "cifar10": "pag.datasets.torchvision_sets",
    "cifar100": "pag.datasets.torchvision_sets",
    "digits": "pag.datasets.digits",
    "folder": "pag.datasets.folder",
    "mnist5k": "pag.datasets.mnist5k",
    "stl10": "pag.datasets.torchvision_sets",
    "tinyimagenet": "pag.datasets.tinyimagenet",
}
