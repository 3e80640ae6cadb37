#include "engine/models/common/pipeline.h"

#include "engine/core/trace.h"

namespace kino::engine {

void TapTensor(const Tap& tap, std::string_view name, const at::Tensor& values) {
  if (!tap) return;
  const at::Tensor host = ToHost(values, at::kFloat).contiguous();
  const std::vector<int64_t> shape = host.sizes().vec();
  tap(name, shape, host.const_data_ptr<float>());
}

}  // namespace kino::engine
