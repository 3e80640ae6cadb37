#include "engine/ops/norm_modulate.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/layer_norm.h>

#include "engine/core/trace.h"
#include "engine/ops/cpu_rows.h"
#ifdef KINO_WITH_CUDA
#include "engine/ops/cuda/launch.h"
#endif

namespace kino::engine {
namespace {

// Rows a thread takes at a time: enough work to pay for waking it.
constexpr int64_t kElementsPerTask = 32768;

void CheckSpans(const at::Tensor& x, const at::Tensor& table, const TokenSpans& spans) {
  int64_t end = 0;
  for (const TokenSpan& span : spans) {
    TORCH_CHECK(
        span.begin == end && span.end >= span.begin && span.row >= 0 && span.row < table.size(0),
        "token span [", span.begin, ", ", span.end, ") of row ", span.row, " in a table of ",
        table.size(0));
    end = span.end;
  }
  TORCH_CHECK(end == x.size(1), "token spans end at ", end, ", the sequence has ", x.size(1));
}

bool IsCpuFloat(const at::Tensor& x, const at::Tensor& table) {
  return RunsOnCpu(x) && x.scalar_type() == at::kFloat && x.is_contiguous() &&
         table.is_contiguous() && table.scalar_type() == at::kFloat;
}

// Calls body(row of [B * L], row of the table) in parallel.
template <typename Body>
void ForRows(const at::Tensor& x, const TokenSpans& spans, const Body& body) {
  const int64_t length = x.size(1);
  const int64_t grain = std::max<int64_t>(1, kElementsPerTask / std::max<int64_t>(1, x.size(2)));
  for (int64_t batch = 0; batch < x.size(0); ++batch) {
    for (const TokenSpan& span : spans) {
      at::parallel_for(span.begin, span.end, grain, [&](int64_t begin, int64_t end) {
        for (int64_t token = begin; token < end; ++token) body(batch * length + token, span.row);
      });
    }
  }
}

#ifdef KINO_WITH_CUDA
// False when the kernel does not take these.
bool NormModulateCuda(const at::Tensor& x, NormKind kind, double eps, const at::Tensor& shift,
                      const at::Tensor& scale, const TokenSpans& spans, at::Tensor& out) {
  const auto element = cuda::ElementOf(x);
  const auto stretches = cuda::SpansOf(spans);
  if (!element || !stretches || !cuda::CanLaunch(x, shift, scale)) return false;
  const c10::cuda::CUDAGuard guard(x.device());
  out = at::empty_like(x);
  C10_CUDA_CHECK(cuda::NormModulate(
      *element, kind == NormKind::kLayer, x.const_data_ptr(), shift.const_data_ptr(),
      scale.const_data_ptr(), out.mutable_data_ptr(), x.size(0) * x.size(1), x.size(1), x.size(2),
      static_cast<float>(eps), *stretches, cuda::StreamOf(x)));
  return true;
}

bool AddGatedCuda(at::Tensor& x, const at::Tensor& y, const at::Tensor& gate,
                  const TokenSpans& spans) {
  const auto element = cuda::ElementOf(x);
  const auto stretches = cuda::SpansOf(spans);
  if (!element || !stretches || !cuda::CanLaunch(x, y, gate)) return false;
  const c10::cuda::CUDAGuard guard(x.device());
  C10_CUDA_CHECK(cuda::AddGated(*element, x.mutable_data_ptr(), y.const_data_ptr(),
                                gate.const_data_ptr(), x.size(0) * x.size(1), x.size(1), x.size(2),
                                *stretches, cuda::StreamOf(x)));
  return true;
}
#endif

at::Tensor PlainNorm(const at::Tensor& x, NormKind kind, double eps) {
  if (kind == NormKind::kLayer) return at::layer_norm(x, {x.size(-1)}, {}, {}, eps);
  const at::Tensor variance = x.to(at::kFloat).pow(2).mean(-1, /*keepdim=*/true);
  return (x * variance.add_(eps).rsqrt_()).to(x.scalar_type());
}

}  // namespace

at::Tensor NormModulateComposed(const at::Tensor& x, NormKind kind, double eps,
                                const at::Tensor& shift, const at::Tensor& scale,
                                const TokenSpans& spans) {
  CheckSpans(x, shift, spans);
  at::Tensor out = PlainNorm(x, kind, eps);
  for (const TokenSpan& span : spans) {
    at::Tensor part = out.narrow(1, span.begin, span.end - span.begin);
    part.mul_(scale[span.row] + 1).add_(shift[span.row]);
  }
  return out;
}

at::Tensor NormModulate(const at::Tensor& x, NormKind kind, double eps, const at::Tensor& shift,
                        const at::Tensor& scale, const TokenSpans& spans) {
  if (x.is_meta() && RunsOnGpu(x) && x.is_contiguous()) {
    CheckSpans(x, shift, spans);
    return at::empty_like(x);
  }
#ifdef KINO_WITH_CUDA
  if (x.is_cuda()) {
    CheckSpans(x, shift, spans);
    at::Tensor fused;
    if (NormModulateCuda(x, kind, eps, shift, scale, spans, fused)) return fused;
  }
#endif
  if (!IsCpuFloat(x, shift) || !scale.is_contiguous())
    return NormModulateComposed(x, kind, eps, shift, scale, spans);
  CheckSpans(x, shift, spans);
  at::Tensor out = at::empty_like(x);
  if (x.is_meta()) return out;
  const int64_t width = x.size(2);
  const float* in = x.const_data_ptr<float>();
  float* to = out.mutable_data_ptr<float>();
  const float* shifts = shift.const_data_ptr<float>();
  const float* scales = scale.const_data_ptr<float>();
  const auto row_function = kind == NormKind::kRms ? cpu::RmsModulateRow : cpu::LayerModulateRow;
  ForRows(x, spans, [&](int64_t token, int64_t row) {
    row_function(in + token * width, shifts + row * width, scales + row * width, to + token * width,
                 width, static_cast<float>(eps));
  });
  return out;
}

void AddGated(at::Tensor& x, at::Tensor& y, const at::Tensor& gate, const TokenSpans& spans) {
  CheckSpans(x, gate, spans);
  if (x.is_meta()) return;
#ifdef KINO_WITH_CUDA
  if (x.is_cuda() && AddGatedCuda(x, y, gate, spans)) return;
#endif
  if (IsCpuFloat(x, gate) && y.is_contiguous()) {
    const int64_t width = x.size(2);
    float* to = x.mutable_data_ptr<float>();
    const float* from = y.const_data_ptr<float>();
    const float* gates = gate.const_data_ptr<float>();
    ForRows(x, spans, [&](int64_t token, int64_t row) {
      cpu::AddGatedRow(to + token * width, from + token * width, gates + row * width, width);
    });
    return;
  }
  for (const TokenSpan& span : spans)
    y.narrow(1, span.begin, span.end - span.begin).mul_(gate[span.row]);
  x.add_(y);
}

}  // namespace kino::engine
