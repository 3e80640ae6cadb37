#include "engine/models/common/image_processor.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/core/status_bridge.h"
#include "engine/core/trace.h"
#include "engine/media/resize.h"

namespace kino::engine {
namespace {

// Half of an even or odd difference, rounded down, as Python divides.
int HalfDown(int difference) { return difference >= 0 ? difference / 2 : -((1 - difference) / 2); }

}  // namespace

ImageProcessor::Size ImageProcessor::Resized(const Size& from) const {
  const int edge = config_.size.shortest_edge;
  if (edge == 0) return config_.size;
  const int64_t shorter = std::min(from.height, from.width),
                longer = std::max(from.height, from.width);
  const int longest_edge = static_cast<int>(edge * longer / std::max<int64_t>(shorter, 1));
  if (from.width <= from.height) return {.height = longest_edge, .width = edge};
  return {.height = edge, .width = longest_edge};
}

RgbImage ImageProcessor::Crop(RgbImage image) const {
  if (!config_.crops) return image;
  const Size& crop = config_.crop;
  // What is smaller gets zeros around it.
  const int top = HalfDown(image.height - crop.height), left = HalfDown(image.width - crop.width);
  RgbImage out{.width = crop.width, .height = crop.height, .rgb = {}};
  out.rgb.assign(size_t{3} * crop.width * crop.height, 0);
  const int first = std::max(0, -left), end = std::min(crop.width, image.width - left);
  for (int y = std::max(0, -top); y < std::min(crop.height, image.height - top); ++y) {
    const auto from =
        image.rgb.begin() + ptrdiff_t{3} * (ptrdiff_t{y + top} * image.width + first + left);
    std::copy(from, from + ptrdiff_t{3} * (end - first),
              out.rgb.begin() + ptrdiff_t{3} * (ptrdiff_t{y} * crop.width + first));
  }
  return out;
}

at::Tensor ImageProcessor::Make(const RgbImage& image, double scale) const {
  const Size resized = Resized({.height = image.height, .width = image.width});
  const RgbImage cropped = Crop(ValueOrThrow(ResizeBicubic(image, resized.width, resized.height)));
  const at::Tensor out = at::empty({1, 3, cropped.height, cropped.width}, at::kFloat);
  auto* to = out.mutable_data_ptr<float>();
  for (size_t channel = 0; channel < 3; ++channel) {
    std::array<float, 256> values{};
    for (size_t byte = 0; byte < values.size(); ++byte) {
      const auto value = static_cast<float>(static_cast<double>(byte) * scale);
      values[byte] =
          config_.normalizes ? (value - config_.mean[channel]) / config_.stddev[channel] : value;
    }
    for (size_t i = channel; i < cropped.rgb.size(); i += 3) *to++ = values[cropped.rgb[i]];
  }
  return out;
}

at::Tensor ImageProcessor::Process(const RgbImage& image) const {
  if (Trace::Current() == nullptr) return Make(image, config_.rescale_factor);
  const HostScope host;
  const Size size =
      config_.crops ? config_.crop : Resized({.height = image.height, .width = image.width});
  return at::empty({1, 3, size.height, size.width}, at::TensorOptions(at::kMeta).dtype(at::kFloat));
}

at::Tensor ImageProcessor::ProcessUnit(const at::Tensor& pixels) const {
  TORCH_CHECK(pixels.dim() == 4 && pixels.size(0) == 1 && pixels.size(1) == 3 &&
                  pixels.scalar_type() == at::kFloat,
              "pixels are ", pixels.toString(), " ", pixels.sizes(),
              ", expected float32 [1, 3, H, W]");
  RgbImage image{.width = static_cast<int>(pixels.size(3)),
                 .height = static_cast<int>(pixels.size(2)),
                 .rgb = {}};
  if (pixels.is_meta()) return Process(image);
  const at::Tensor rows = pixels[0].permute({1, 2, 0}).contiguous();
  const auto* values = rows.const_data_ptr<float>();
  const auto count = static_cast<size_t>(rows.numel());
  bool are_bytes = true;
  for (size_t i = 0; i < count; ++i) {
    if (!(values[i] >= 0 && values[i] <= 1)) {
      throw StatusError(absl::InvalidArgumentError(
          absl::StrCat("an image has pixel ", values[i], ", expected 0 to 1")));
    }
    // numpy.allclose with what is left of it as an integer.
    are_bytes = are_bytes && (values[i] <= 1e-8 || values[i] == 1.0F);
  }
  image.rgb.resize(count);
  for (size_t i = 0; i < count; ++i) {
    const auto scaled = static_cast<float>(static_cast<double>(values[i]) * 255);
    image.rgb[i] = static_cast<uint8_t>(are_bytes ? values[i] : scaled);
  }
  return Make(image, are_bytes ? 1.0 : 1.0 / 255);
}

}  // namespace kino::engine
