#include "engine/nn/run_length.h"

#include "engine/core/trace.h"

namespace kino::engine {

RunLength RunLengthOn(c10::Device device) {
  return RunsOnGpu(device) ? RunLength::OnGpu() : RunLength();
}

}  // namespace kino::engine
