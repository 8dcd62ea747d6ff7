"""Optimisers by name and the learning-rate schedule, a function of the step."""

import inspect
import math

import torch


def eager(optimizer):
    """torch's class of an optimiser without what decorates its methods for torch.compile's sake: that imports
    torch._dynamo, two seconds of each stage that trains, and nothing is compiled here. Of a torch that decorates
    otherwise it is the class as it was."""
    names = "add_param_group", "load_state_dict", "state_dict", "zero_grad"
    plain = {name: inspect.unwrap(getattr(optimizer, name)) for name in names}
    step = torch.no_grad()(inspect.unwrap(optimizer.step))  # the one thing among it that must stay
    return type(optimizer.__name__, (optimizer,), {**plain, "step": step})


def build(method, train, capturable=False):
    """The optimiser `train.optimizer` over the method's parameter groups. Biases, norms and other vectors are not
    decayed unless `train.decay_vectors` says so; a judge's budget does not have that key, nor `scale_lr`.
    capturable: one whose step can be recorded (capture.py): its rate may be a tensor, and nothing is on the host."""
    groups = []
    for group in method.param_groups():
        members = list(group["params"])
        for matrices in (True, False):
            parameters = [p for p in members if (p.dim() > 1) == matrices]
            if parameters:
                decayed = matrices or getattr(train, "decay_vectors", None)
                decay = train.weight_decay if decayed else 0.0
                groups.append({"lr_scale": 1.0, **group, "params": parameters, "weight_decay": decay})
    if train.optimizer == "sgd":
        return eager(torch.optim.SGD)(groups, lr=train.lr, momentum=0.9, fused=capturable or None)
    if train.optimizer in TRUST:
        return eager(Lars)(groups, train.lr, *TRUST[train.optimizer])
    return eager(torch.optim.AdamW)(groups, lr=train.lr, fused=capturable or None)


TRUST = {"lars": (0.001, False), "larc": (0.02, True)}  # trust and clipped, as their authors' code has them


class Lars(torch.optim.Optimizer):
    """Layer-wise adaptive rates: You et al. 2017, "Large Batch Training of Convolutional Networks", Algorithm 1 with
    eq. 6. https://arxiv.org/abs/1708.03888

    A matrix's rate is the global one times its ratio, trust · |w| / (|g| + decay · |w|). clipped: its rate is the ratio
    itself, at most the global one, as in LARC of NVIDIA's apex and in solo-learn's recipes for CIFAR. Biases, norms and
    other vectors have the global rate, and so has a matrix without weight or gradient, both as in SimCLR's code. (It
    takes |g + decay · w| for the sum.) The momentum is over changes with their rates in them, the paper's; that of LARC's
    code is over those without the global one, which is the same while that does not change.
    """

    def __init__(self, groups, lr, trust, clipped, momentum=0.9):
        own = {"trust": trust, "clipped": clipped, "momentum": momentum}
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0} | own)

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                change = (p.grad + group["weight_decay"] * p) * self.rate(p, group)
                velocity = self.state[p].setdefault("velocity", torch.zeros_like(p))
                p.sub_(velocity.mul_(group["momentum"]).add_(change))

    def rate(self, p, group):
        """A number for vectors; else a scalar on the device, of which nothing is read back."""
        lr = group["lr"]
        if p.dim() < 2:
            return lr
        weight, gradient = p.norm(), p.grad.norm()
        ratio = group["trust"] * weight / (gradient + group["weight_decay"] * weight)
        rate = ratio.clamp(max=lr) if group["clipped"] else lr * ratio
        return torch.where((weight > 0) & (gradient > 0), rate, lr)


def learning_rate(step, steps, train):
    """Linear warm-up over the share `warmup` of the steps, then half a cosine down to 0."""
    lr = train.lr * train.batch / 256 if getattr(train, "scale_lr", None) else train.lr
    warm = int(train.warmup * steps)
    if step < warm:
        return lr * (step + 1) / warm
    return lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def set_learning_rate(optimizer, lr):
    """Where the rate is a tensor already, in place."""
    for group in optimizer.param_groups:
        if torch.is_tensor(group["lr"]):
            group["lr"].fill_(lr * group["lr_scale"])
        else:
            group["lr"] = lr * group["lr_scale"]
