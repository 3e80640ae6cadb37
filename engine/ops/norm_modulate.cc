#include "engine/ops/norm_modulate.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/layer_norm.h>

#include <algorithm>

#include "engine/core/kernel_counter.h"
#include "engine/core/trace.h"
#include "engine/ops/cpu_rows.h"
#include "engine/ops/row_loop.h"
#ifdef KINO_WITH_CUDA
#include "engine/ops/cuda/launch.h"
#endif

namespace kino::engine {
namespace {

// Rows of a table by which a row of the batch is further than the one before it.
int64_t BatchRows(const at::Tensor& table) { return table.dim() == 3 ? table.size(1) : 0; }

void Check(const at::Tensor& x, const at::Tensor& table, const TokenSpans& spans) {
  TORCH_CHECK(table.size(-1) == x.size(2) &&
                  (table.dim() == 2 || (table.dim() == 3 && table.size(0) == x.size(0))),
              "a table of parameters is ", table.sizes(), ", expected [rows, ", x.size(2), "] or [",
              x.size(0), ", rows, ", x.size(2), "]");
  int64_t end = 0;
  for (const TokenSpan& span : spans) {
    TORCH_CHECK(
        span.begin == end && span.end >= span.begin && span.row >= 0 && span.row < table.size(-2),
        "token span [", span.begin, ", ", span.end, ") of row ", span.row, " in a table of ",
        table.size(-2));
    end = span.end;
  }
  TORCH_CHECK(end == x.size(1), "token spans end at ", end, ", the sequence has ", x.size(1));
}

// Calls body(offset of a token's row, offset of its row in the tables), in elements, in parallel.
template <typename Body>
void ForRows(const at::Tensor& x, const at::Tensor& table, const TokenSpans& spans,
             const Body& body) {
  const int64_t length = x.size(1), width = x.size(2);
  for (int64_t batch = 0; batch < x.size(0); ++batch) {
    for (const TokenSpan& span : spans) {
      const int64_t row = (batch * BatchRows(table) + span.row) * width;
      at::parallel_for(span.begin, span.end, cpu::RowsPerTask(width),
                       [&](int64_t begin, int64_t end) {
                         for (int64_t token = begin; token < end; ++token)
                           body((batch * length + token) * width, row);
                       });
    }
  }
}

// The parameters of a span's tokens: [D], or [B, 1, D].
at::Tensor ParametersOf(const at::Tensor& table, const TokenSpan& span) {
  return table.dim() == 3 ? table.narrow(1, span.row, 1) : table.select(0, span.row);
}

// A trace of a GPU, on which the kernels take these.
template <typename... Tensors>
bool TracesKernel(const at::Tensor& x, const Tensors&... others) {
  return x.is_meta() && RunsOnGpu(x) && x.is_contiguous() &&
         ((!others.defined() || others.is_contiguous()) && ...);
}

// What a kernel reads of a table, for a trace.
at::Tensor RowsUsed(const at::Tensor& table, const TokenSpans& spans) {
  if (!table.defined()) return table;
  return table.narrow(-2, 0, std::min(table.size(-2), static_cast<int64_t>(spans.size())));
}

#ifdef KINO_WITH_CUDA
// The kernels take these.
bool CanLaunch(const at::Tensor& x, const at::Tensor& y, const at::Tensor& shift,
               const at::Tensor& scale, const TokenSpans& spans) {
  return cuda::ElementOf(x.scalar_type()) && !spans.empty() && spans.size() <= cuda::kMaxSpans &&
         cuda::CanLaunch(x, y, scale) && (!shift.defined() || cuda::CanLaunch(x, shift));
}

cuda::Rows RowsOf(const at::Tensor& x, const at::Tensor& table, const TokenSpans& spans) {
  return {.rows = x.size(0) * x.size(1),
          .tokens = x.size(1),
          .width = x.size(2),
          .batch_rows = BatchRows(table),
          .spans = cuda::SpansOf(spans)};
}
#endif

at::Tensor PlainNorm(const at::Tensor& x, const NormStyle& style, const NormAffine& affine = {}) {
  if (style.kind == NormKind::kLayer)
    return at::layer_norm(x, {x.size(-1)}, affine.weight, affine.bias, style.eps);
  const at::Tensor variance = x.to(at::kFloat).pow(2).mean(-1, /*keepdim=*/true);
  return (x * variance.add_(style.eps).rsqrt_()).to(x.scalar_type());
}

}  // namespace

at::Tensor NormModulateComposed(const at::Tensor& x, const NormStyle& style,
                                const at::Tensor& shift, const at::Tensor& scale,
                                const TokenSpans& spans, const NormAffine& affine) {
  Check(x, scale, spans);
  const bool rounds_once = style.rounding == Rounding::kOnce;
  at::Tensor out = PlainNorm(rounds_once ? x.to(at::kFloat) : x, style, affine);
  for (const TokenSpan& span : spans) {
    at::Tensor part = out.narrow(1, span.begin, span.end - span.begin);
    part.mul_(ParametersOf(scale, span).to(out.scalar_type()) + 1);
    if (shift.defined()) part.add_(ParametersOf(shift, span));
  }
  return out.to(x.scalar_type());
}

at::Tensor NormModulate(const at::Tensor& x, const NormStyle& style, const at::Tensor& shift,
                        const at::Tensor& scale, const TokenSpans& spans,
                        const NormAffine& affine) {
  Check(x, scale, spans);
  const bool has_affine = affine.weight.defined();
  if (has_affine) {
    TORCH_CHECK(style.kind == NormKind::kLayer && style.rounding == Rounding::kEachStep &&
                    shift.defined() && affine.bias.defined() && affine.weight.dim() == 1 &&
                    affine.weight.size(0) == x.size(2) &&
                    affine.bias.sizes() == affine.weight.sizes(),
                "a norm with parameters of its own: expected a layer norm of ", x.size(2),
                " numbers with weight, bias and shift, rounded at each step");
  }
  if (shift.defined()) {
    TORCH_CHECK(shift.sizes() == scale.sizes(), "shift is ", shift.sizes(), ", scale ",
                scale.sizes());
  }
  if (TracesKernel(x, shift, scale, affine.weight, affine.bias)) {
    at::Tensor out = at::empty_like(x);
    CountKernel({x, RowsUsed(scale, spans), RowsUsed(shift, spans), affine.weight, affine.bias},
                {out});
    return out;
  }
#ifdef KINO_WITH_CUDA
  if (CanLaunch(x, x, shift, scale, spans) &&
      (!has_affine || cuda::CanLaunch(x, affine.weight, affine.bias))) {
    const c10::cuda::CUDAGuard guard(x.device());
    at::Tensor out = at::empty_like(x);
    C10_CUDA_CHECK(
        cuda::NormModulate(*cuda::ElementOf(x.scalar_type()), style.kind == NormKind::kLayer,
                           style.rounding == Rounding::kOnce, x.const_data_ptr(),
                           has_affine ? affine.weight.const_data_ptr() : nullptr,
                           has_affine ? affine.bias.const_data_ptr() : nullptr,
                           shift.defined() ? shift.const_data_ptr() : nullptr,
                           scale.const_data_ptr(), out.mutable_data_ptr(), RowsOf(x, scale, spans),
                           static_cast<float>(style.eps), cuda::StreamOf(x)));
    return out;
  }
#endif
  if (!cpu::FusesRows(x, scale) || (shift.defined() && !cpu::FusesRows(x, shift)) ||
      (has_affine && !(cpu::FusesRows(x, affine.weight) && cpu::FusesRows(x, affine.bias))))
    return NormModulateComposed(x, style, shift, scale, spans, affine);
  at::Tensor out = at::empty_like(x);
  if (x.is_meta()) return out;
  const cpu::RowNorm norm =
      style.kind == NormKind::kRms ? cpu::RowNorm::kRms : cpu::RowNorm::kLayer;
  cpu::WithRowType(x, [&](auto zero) {
    using T = decltype(zero);
    const T* from = cpu::Data<T>(x);
    const T* shifts = shift.defined() ? cpu::Data<T>(shift) : nullptr;
    const T* scales = cpu::Data<T>(scale);
    T* to = cpu::MutableData<T>(out);
    if (has_affine) {
      const T* weights = cpu::Data<T>(affine.weight);
      const T* biases = cpu::Data<T>(affine.bias);
      return ForRows(x, scale, spans, [&](int64_t at, int64_t row) {
        cpu::AffineModulateRow(from + at, norm, weights, biases, shifts + row, scales + row,
                               to + at, x.size(2), static_cast<float>(style.eps));
      });
    }
    ForRows(x, scale, spans, [&](int64_t at, int64_t row) {
      cpu::NormModulateRow(from + at, norm, style.rounding == Rounding::kOnce,
                           shifts == nullptr ? nullptr : shifts + row, scales + row, to + at,
                           x.size(2), static_cast<float>(style.eps));
    });
  });
  return out;
}

void AddGatedComposed(at::Tensor& x, at::Tensor& y, const at::Tensor& gate,
                      const TokenSpans& spans) {
  Check(x, gate, spans);
  for (const TokenSpan& span : spans)
    y.narrow(1, span.begin, span.end - span.begin).mul_(ParametersOf(gate, span));
  x.add_(y);
}

void AddGated(at::Tensor& x, at::Tensor& y, const at::Tensor& gate, const TokenSpans& spans) {
  Check(x, gate, spans);
  if (TracesKernel(x, y, gate)) return CountKernel({x, y, RowsUsed(gate, spans)}, {x});
#ifdef KINO_WITH_CUDA
  if (CanLaunch(x, y, {}, gate, spans)) {
    const c10::cuda::CUDAGuard guard(x.device());
    C10_CUDA_CHECK(cuda::AddGated(*cuda::ElementOf(x.scalar_type()), x.mutable_data_ptr(),
                                  y.const_data_ptr(), gate.const_data_ptr(), RowsOf(x, gate, spans),
                                  cuda::StreamOf(x)));
    return;
  }
#endif
  if (!cpu::FusesRows(x, y) || !cpu::FusesRows(x, gate)) return AddGatedComposed(x, y, gate, spans);
  if (x.is_meta()) return;
  cpu::WithRowType(x, [&](auto zero) {
    using T = decltype(zero);
    T* to = cpu::MutableData<T>(x);
    const T* from = cpu::Data<T>(y);
    const T* gates = cpu::Data<T>(gate);
    ForRows(x, gate, spans, [&](int64_t at, int64_t row) {
      cpu::AddGatedRow(to + at, from + at, gates + row, x.size(2));
    });
  });
}

void AddNormGatedComposed(at::Tensor& x, const at::Tensor& y, double eps, const at::Tensor& gate,
                          const TokenSpans& spans) {
  Check(x, gate, spans);
  const at::Tensor normed = PlainNorm(y.to(at::kFloat), {.kind = NormKind::kRms, .eps = eps});
  for (const TokenSpan& span : spans)
    normed.narrow(1, span.begin, span.end - span.begin).mul_(ParametersOf(gate, span));
  x.add_(normed.to(x.scalar_type()));
}

void AddNormGated(at::Tensor& x, const at::Tensor& y, double eps, const at::Tensor& gate,
                  const TokenSpans& spans) {
  Check(x, gate, spans);
  if (TracesKernel(x, y, gate)) return CountKernel({x, y, RowsUsed(gate, spans)}, {x});
#ifdef KINO_WITH_CUDA
  if (CanLaunch(x, y, {}, gate, spans)) {
    const c10::cuda::CUDAGuard guard(x.device());
    C10_CUDA_CHECK(cuda::AddNormGated(
        *cuda::ElementOf(x.scalar_type()), x.mutable_data_ptr(), y.const_data_ptr(),
        gate.const_data_ptr(), RowsOf(x, gate, spans), static_cast<float>(eps), cuda::StreamOf(x)));
    return;
  }
#endif
  if (!cpu::FusesRows(x, y) || !cpu::FusesRows(x, gate))
    return AddNormGatedComposed(x, y, eps, gate, spans);
  if (x.is_meta()) return;
  cpu::WithRowType(x, [&](auto zero) {
    using T = decltype(zero);
    T* to = cpu::MutableData<T>(x);
    const T* from = cpu::Data<T>(y);
    const T* gates = cpu::Data<T>(gate);
    ForRows(x, gate, spans, [&](int64_t at, int64_t row) {
      cpu::AddNormGatedRow(to + at, from + at, gates + row, x.size(2), static_cast<float>(eps));
    });
  });
}

}  // namespace kino::engine
