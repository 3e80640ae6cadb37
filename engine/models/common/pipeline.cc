#include "engine/models/common/pipeline.h"

namespace kino::engine {

void TapTensor(const Tap& tap, std::string_view name, const at::Tensor& values) {
  if (!tap) return;
  const at::Tensor host = values.to(at::kCPU, at::kFloat).contiguous();
  const std::vector<int64_t> shape = host.sizes().vec();
  tap(name, shape, host.const_data_ptr<float>());
}

}  // namespace kino::engine
