"""A net that stands for a torchvision trunk in tests of what is built on one."""

from collections import OrderedDict

from torch import nn


def narrow_net(name="resnet18", **keywords):
    """A ResNet-18 in name and width alone: what is tested on it does not depend on what lies between."""
    layers = {
        "conv1": nn.Conv2d(3, 8, 5, stride=2, bias=False), "bn1": nn.BatchNorm2d(8), "relu": nn.ReLU(),
        "layer4": nn.Sequential(nn.Conv2d(8, 512, 3, stride=2), nn.ReLU()), "avgpool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(), "fc": nn.Linear(512, 1000),
    }  # fmt: skip
    return nn.Sequential(OrderedDict(layers))
