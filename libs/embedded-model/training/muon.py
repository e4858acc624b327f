"""Muon for linear and convolution weights, AdamW for everything else.

Muon makes the momentum of a matrix orthogonal before the step, which brings these small networks to the same loss in
about half the steps.  torch.optim.Muon refuses convolutions; here they are seen as [out, in * height * width].
"""
import torch

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


def orthogonal(stack: torch.Tensor) -> torch.Tensor:
    """stack [count, rows, columns]: every matrix is made nearly orthogonal by Newton-Schulz steps."""
    a, b, c = NEWTON_SCHULZ
    tall = stack.shape[1] > stack.shape[2]
    x = stack.bfloat16()
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return (x.mT if tall else x).to(stack.dtype)


class Muon(torch.optim.Optimizer):
    """Weights of one shape are handled as one stack: single small products cost more in calls than in arithmetic."""

    def __init__(self, parameters, lr: float, momentum: float = 0.95, weight_decay: float = 0.02):
        shapes = {}
        for weight in parameters:
            shapes.setdefault(tuple(weight.flatten(1).shape), []).append(weight)
        groups = [{"params": weights} for weights in shapes.values()]
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            weights = [w for w in group["params"] if w.grad is not None]
            if not weights:
                continue
            gradient = torch.stack([w.grad.flatten(1) for w in weights])
            state = self.state[weights[0]]
            if not state:
                state["momentum"] = torch.zeros_like(gradient)
            average = state["momentum"].lerp_(gradient, 1 - group["momentum"])
            updates = orthogonal(gradient.lerp(average, group["momentum"]))
            # The size of a typical AdamW step, so that both optimizers share one learning rate.
            scale = 0.2 * max(gradient.shape[1:]) ** 0.5
            for weight, update in zip(weights, updates):
                weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(update.reshape(weight.shape), alpha=-group["lr"] * scale)
