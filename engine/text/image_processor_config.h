// Config of what makes a picture into a vision encoder's pixels (transformers 5.23
// CLIPImageProcessor and SiglipImageProcessor, preprocessor_config.json). Values only; no torch: a
// model is described by it as well.
#pragma once

#include <array>
#include <string>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace kino::engine {

struct ImageProcessorConfig {
  // Pixels.
  struct Size {
    int shortest_edge = 0;  // 0: exactly height x width
    int height = 0, width = 0;
  };
  Size size;
  bool crops = false;
  Size crop;                    // exact
  double rescale_factor = 1.0;  // of bytes
  bool normalizes = true;
  std::array<float, 3> mean{}, stddev{};

  // `path` names the file in messages. UNIMPLEMENTED: another processor, a filter that is not
  // bicubic, no resize, or a size that is neither exact nor a shortest edge alone.
  // INVALID_ARGUMENT: a value of the wrong type or out of range. See ReadConfig in
  // engine/core/json.h.
  static absl::StatusOr<ImageProcessorConfig> FromJson(const nlohmann::json& json,
                                                       const std::string& path);

  // Every picture comes out as side x side.
  bool Gives(int side) const;
};

}  // namespace kino::engine
