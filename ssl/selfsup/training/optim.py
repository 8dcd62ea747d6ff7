"""Optimisers by name and the learning-rate schedule, a function of the step."""

import math

import torch


def build(method, train):
    """AdamW or SGD over the method's parameter groups. Biases, norms and other vectors are not decayed."""
    groups = []
    for group in method.param_groups():
        members = list(group["params"])
        for decayed in (True, False):
            parameters = [p for p in members if (p.dim() > 1) == decayed]
            if parameters:
                decay = train.weight_decay if decayed else 0.0
                groups.append({"lr_scale": 1.0, **group, "params": parameters, "weight_decay": decay})
    if train.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=train.lr, momentum=0.9)
    return torch.optim.AdamW(groups, lr=train.lr)


def learning_rate(step, steps, train):
    """Linear warm-up over the share `warmup` of the steps, then half a cosine down to 0."""
    warm = int(train.warmup * steps)
    if step < warm:
        return train.lr * (step + 1) / warm
    return train.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def set_learning_rate(optimizer, lr):
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
