"""The Muon optimizer (Keller Jordan, 2024): momentum, orthogonalised by Newton-Schulz iterations."""
import torch


def orthogonalize(matrices, steps=5):
    """Pushes the singular values of each [..., rows, columns] towards 1."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.bfloat16()
    tall = x.size(-2) > x.size(-1)
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return (x.mT if tall else x).float()


class Muon:
    """For weights of two or more axes; kernels count as matrices [out, everything else].

    With `split`, the large kernels of upsamplers are taken 64 rows at a time, which costs a fraction.
    """

    def __init__(self, parameters, weight_decay=0.01, momentum=.95, split=False):
        self._decay, self._momentum, self._split = weight_decay, momentum, split
        self._groups = {}  # equal shapes share one batched iteration
        for p in parameters:
            self._groups.setdefault((p.shape[0], p[0].numel()), []).append(p)
        self._buffers = {shape: torch.zeros(len(group), *shape, device=group[0].device)
                         for shape, group in self._groups.items()}

    @torch.no_grad()
    def step(self, rate):
        for shape, group in self._groups.items():
            gradient = torch.stack([p.grad.reshape(shape) for p in group])
            buffer = self._buffers[shape]
            buffer.lerp_(gradient, 1 - self._momentum)
            nesterov = gradient.lerp(buffer, self._momentum)
            large = self._split and shape[0] >= 256 and shape[1] > 800
            rows = 64 if large else shape[0]
            update = orthogonalize(nesterov.reshape(-1, rows, shape[1])).reshape(nesterov.shape)
            scale = 0.2 * max(shape) ** .5 * rate
            for p, u in zip(group, update):
                p.mul_(1 - rate * self._decay).sub_(u.reshape(p.shape), alpha=scale)
