"""Counts what a PyTorch program would launch and move on a GPU: it runs on fake CUDA tensors, which have shapes and no bytes,
and every operator that reaches a kernel is seen.

The rules are those of engine/core/kernel_counter.h: a view is free, an operator that computes is a launch, which reads each
tensor it takes once and writes what it gives. A tensor that is repeated by a stride of 0 counts what it holds. Copies between
host and device are none. Where one operator of torch is more than one kernel on CUDA, _SEVERAL says which.
"""
import collections
import contextlib

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# An H200: dense bfloat16 products and its memory (engine/core/kernel_counts.h has the same).
FLOPS_PER_SECOND, BYTES_PER_SECOND = 989e12, 4.8e12
_VIEWS = {"_unsafe_view", "lift_fresh", "device"}
_ALLOCATIONS = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "set_", "resize_"}
_FILLS = {"copy_", "fill_", "zero_", "normal_", "uniform_"}


def bytes_reached(x):
    if x.numel() == 0:
        return 0
    elements = extent = 1
    for size, stride in zip(x.shape, x.stride()):
        elements *= size if stride else 1
        extent += (size - 1) * stride
    return min(elements, extent) * x.element_size()


def _place(x):
    return x.untyped_storage()._cdata, x.storage_offset(), bytes_reached(x)


class Counts(TorchDispatchMode):
    """Of what runs while it is active: launches, bytes, floating-point operations of products, roofline seconds; and the same
    by operator."""

    def __init__(self):
        super().__init__()
        self.launches = self.flops = self.bytes_read = self.bytes_written = self.roofline_seconds = 0
        self.by_operator = collections.defaultdict(lambda: [0, 0])

    @property
    def bytes(self):
        return self.bytes_read + self.bytes_written

    def launch(self, name, read, written, flops=0):
        read, written = (sum(place[2] for place in {_place(x) for x in tensors if x is not None}) for tensors in (read, written))
        self.launches += 1
        self.bytes_read += read
        self.bytes_written += written
        self.flops += flops
        self.roofline_seconds += max(flops / FLOPS_PER_SECOND, (read + written) / BYTES_PER_SECOND)
        self.by_operator[name][0] += 1
        self.by_operator[name][1] += read + written

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        self._count(func, args, kwargs, out)
        return out

    def _count(self, func, args, kwargs, out):
        name = func._schema.name.split("::")[1]
        given = [x for x in tree_leaves(out) if isinstance(x, torch.Tensor) and x.is_cuda and x.numel() > 0]
        is_view = not func._schema.is_mutable and any(r.alias_info is not None for r in func._schema.returns)
        if not given or is_view or name in _VIEWS | _ALLOCATIONS or torch.Tag.inplace_view in func.tags:
            return
        arguments = func._schema.arguments
        read, written = [], []
        for argument, value in [*zip(arguments, args), *((a, kwargs[a.name]) for a in arguments if a.name in kwargs)]:
            tensors = [x for x in tree_leaves(value) if isinstance(x, torch.Tensor)]
            if name in {"copy_", "_to_copy"} and any(not x.is_cuda for x in tensors):
                return
            tensors = [x for x in tensors if x.is_cuda]
            writes = argument.alias_info is not None and argument.alias_info.is_write
            if writes:
                written += tensors
            if not (writes and (argument.is_out or name in _FILLS)):
                read += tensors
        if not func._schema.is_mutable:
            written = given
        several = _SEVERAL.get(name)
        if several is not None:
            return several(self, args, given)
        self.launch(name, read, written, _flops(name, args, given))


def _flops(name, args, given):
    """Of matrix products: twice the results times what each sums over."""
    left = {"mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1}.get(name)
    return 0 if left is None else 2 * given[0].numel() * args[left].shape[-1]


def _convolution(counts, args, given):
    """torch adds the bias behind cuDNN."""
    x, weight, bias = args[:3]
    counts.launch("convolution", [x, weight], given, 2 * given[0].numel() * weight[0].numel())
    if bias is not None:
        counts.launch("convolution bias", [given[0], bias], given)


def _group_norm(counts, args, given):
    """Moments of each group, what they make of a channel, and the pass that applies it (native/cuda/group_norm_kernel.cu)."""
    x, weight, bias = args[:3]
    out, mean, deviation = given
    affine = torch.empty(2, x.shape[0], x.shape[1], dtype=torch.float32, device=x.device)
    counts.launch("group_norm", [x], [mean, deviation])
    counts.launch("group_norm", [mean, deviation, weight, bias], [affine])
    counts.launch("group_norm", [x, affine], [out])


def _constant_pad(counts, args, given):
    """The frame is filled, then the middle copied."""
    counts.launch("constant_pad_nd", [], given)
    counts.launch("constant_pad_nd", [args[0]], [torch.empty_like(args[0])])


_SEVERAL = {"convolution": _convolution, "native_group_norm": _group_norm, "constant_pad_nd": _constant_pad}


@contextlib.contextmanager
def fake_gpu():
    """Tensors made on "cuda" are fake. Attention is one kernel, as its fused forms are; without a GPU torch would compose it.
    torch.nonzero, whose result's length no fake tensor knows, finds nothing to be zero."""
    attention, nonzero = torch.nn.functional.scaled_dot_product_attention, torch.nonzero

    def active():
        return next((mode for mode in reversed(torch.utils._python_dispatch._get_current_dispatch_mode_stack())
                     if isinstance(mode, Counts)), None)

    def fused_attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
        assert dropout_p == 0.0 and not is_causal and not enable_gqa
        # [B, H, L, K] in the memory order of the fused kernels, [B, L, H, K].
        batch, heads, length, width = query.shape
        out = torch.empty(batch, length, heads, value.shape[3], dtype=query.dtype, device=query.device).transpose(1, 2)
        if active() is not None:
            active().launch("attention", [query, key, value, attn_mask], [out],
                            2 * batch * heads * length * key.shape[2] * (width + value.shape[3]))
        return out

    def all_of(mask, as_tuple=False):
        assert mask.dim() == 1 and not as_tuple
        out = torch.empty(mask.numel(), 1, dtype=torch.int64, device=mask.device)
        if active() is not None:
            active().launch("nonzero", [mask], [out])
        return out

    torch.nn.functional.scaled_dot_product_attention, torch.nonzero = fused_attention, all_of
    try:
        with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True) as mode:
            yield mode
    finally:
        torch.nn.functional.scaled_dot_product_attention, torch.nonzero = attention, nonzero
