#include "engine/models/common/image_processor.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/core/status.h"
#include "engine/core/status_bridge.h"
#include "engine/core/trace.h"
#include "engine/media/resize.h"

namespace kino::engine {
namespace {

constexpr int kLargestSide = 16384;
constexpr int kBicubic = 3;  // Pillow's number for it

// What a class has where its file says nothing.
struct Defaults {
  bool crops;
  std::vector<double> mean, std;
};

absl::StatusOr<Defaults> DefaultsOf(const std::string& type, const std::string& path) {
  if (type == "CLIPFeatureExtractor" || type.starts_with("CLIPImageProcessor")) {
    return Defaults{.crops = true,
                    .mean = {0.48145466, 0.4578275, 0.40821073},
                    .std = {0.26862954, 0.26130258, 0.27577711}};
  }
  if (type.starts_with("SiglipImageProcessor"))
    return Defaults{.crops = false, .mean = {0.5, 0.5, 0.5}, .std = {0.5, 0.5, 0.5}};
  return absl::UnimplementedError(
      absl::StrCat(path, ": image_processor_type '", type,
                   "', expected 'CLIPImageProcessor' or 'SiglipImageProcessor'"));
}

// A size as configs spell it.
struct GivenSize {
  int shortest_edge = 0;  // 0: exact
  int height = 0, width = 0;
};

// A number alone is a square's side or, unless `square`, the shortest edge.
absl::StatusOr<GivenSize> ReadSize(const nlohmann::json& json, const char* key, bool square,
                                   const GivenSize& fallback, const std::string& path) {
  const auto found = json.find(key);
  if (found == json.end() || found->is_null()) return fallback;
  GivenSize size;
  if (!found->is_object()) {
    ConfigReader reader(json, path);
    const int side = reader.Within(key, 0, 1, kLargestSide);
    KINO_RETURN_IF_ERROR(reader.status());
    if (square) return GivenSize{.height = side, .width = side};
    return GivenSize{.shortest_edge = side};
  }
  ConfigReader reader(*found, absl::StrCat(path, " (", key, ")"));
  if (found->contains("shortest_edge") && !found->contains("longest_edge") && !square) {
    size.shortest_edge = reader.Within("shortest_edge", 0, 1, kLargestSide);
  } else if (found->contains("height") && found->contains("width")) {
    size.height = reader.Within("height", 0, 1, kLargestSide);
    size.width = reader.Within("width", 0, 1, kLargestSide);
  } else {
    return absl::UnimplementedError(absl::StrCat(path, ": ", key, " ", found->dump(),
                                                 ", expected height and width",
                                                 square ? "" : ", or shortest_edge alone"));
  }
  KINO_RETURN_IF_ERROR(reader.status());
  return size;
}

absl::StatusOr<std::array<float, 3>> ReadChannels(ConfigReader& reader, const char* key,
                                                  const std::vector<double>& fallback,
                                                  const std::string& path) {
  const std::vector<double> values = reader.Get(key, fallback);
  KINO_RETURN_IF_ERROR(reader.status());
  if (values.size() != 3) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": '", key, "' has ", values.size(), " values, expected 3"));
  }
  return std::array<float, 3>{static_cast<float>(values[0]), static_cast<float>(values[1]),
                              static_cast<float>(values[2])};
}

// Half of an even or odd difference, rounded down, as Python divides.
int HalfDown(int difference) { return difference >= 0 ? difference / 2 : -((1 - difference) / 2); }

}  // namespace

absl::StatusOr<ImageProcessor> ImageProcessor::FromJson(const nlohmann::json& json,
                                                        const std::string& path) {
  constexpr int kSide = 224;
  ConfigReader reader(json, path);
  const std::string type =
      reader.Get("image_processor_type", reader.Get("feature_extractor_type", std::string()));
  KINO_RETURN_IF_ERROR(reader.status());
  KINO_ASSIGN_OR_RETURN(const Defaults defaults, DefaultsOf(type, path));
  const GivenSize square = {.height = kSide, .width = kSide};
  KINO_ASSIGN_OR_RETURN(
      const GivenSize size,
      ReadSize(json, "size", false, defaults.crops ? GivenSize{.shortest_edge = kSide} : square,
               path));
  KINO_ASSIGN_OR_RETURN(const GivenSize crop, ReadSize(json, "crop_size", true, square, path));
  ImageProcessor processor;
  processor.shortest_edge_ = size.shortest_edge;
  processor.size_ = {size.height, size.width};
  processor.crops_ = reader.Get("do_center_crop", defaults.crops);
  processor.crop_ = {crop.height, crop.width};
  const bool rescales = reader.Get("do_rescale", true);
  const double factor = reader.Get("rescale_factor", 1.0 / 255);
  processor.rescale_factor_ = rescales ? factor : 1.0;
  processor.normalizes_ = reader.Get("do_normalize", true);
  const bool resizes = reader.Get("do_resize", true);
  const int filter = reader.Get("resample", kBicubic);
  KINO_ASSIGN_OR_RETURN(processor.mean_, ReadChannels(reader, "image_mean", defaults.mean, path));
  KINO_ASSIGN_OR_RETURN(processor.std_, ReadChannels(reader, "image_std", defaults.std, path));
  KINO_RETURN_IF_ERROR(reader.status());
  if (!resizes || filter != kBicubic) {
    return absl::UnimplementedError(
        absl::StrCat(path, resizes ? absl::StrCat(": resample ", filter) : ": do_resize false",
                     ", expected a resize with filter ", kBicubic, " (bicubic)"));
  }
  if (std::any_of(processor.std_.begin(), processor.std_.end(),
                  [](float value) { return !(value > 0); })) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": a value of 'image_std' is not positive"));
  }
  return processor;
}

ImageProcessor::Size ImageProcessor::Resized(const Size& from) const {
  if (shortest_edge_ == 0) return size_;
  const int64_t shorter = std::min(from.height, from.width),
                longer = std::max(from.height, from.width);
  const int longest_edge =
      static_cast<int>(shortest_edge_ * longer / std::max<int64_t>(shorter, 1));
  if (from.width <= from.height) return {.height = longest_edge, .width = shortest_edge_};
  return {.height = shortest_edge_, .width = longest_edge};
}

RgbImage ImageProcessor::Crop(RgbImage image) const {
  if (!crops_) return image;
  // What is smaller gets zeros around it.
  const int top = HalfDown(image.height - crop_.height), left = HalfDown(image.width - crop_.width);
  RgbImage out{.width = crop_.width, .height = crop_.height, .rgb = {}};
  out.rgb.assign(size_t{3} * crop_.width * crop_.height, 0);
  const int first = std::max(0, -left), end = std::min(crop_.width, image.width - left);
  for (int y = std::max(0, -top); y < std::min(crop_.height, image.height - top); ++y) {
    const auto from =
        image.rgb.begin() + ptrdiff_t{3} * (ptrdiff_t{y + top} * image.width + first + left);
    std::copy(from, from + ptrdiff_t{3} * (end - first),
              out.rgb.begin() + ptrdiff_t{3} * (ptrdiff_t{y} * crop_.width + first));
  }
  return out;
}

at::Tensor ImageProcessor::Make(const RgbImage& image, double scale) const {
  const Size resized = Resized({image.height, image.width});
  const RgbImage cropped = Crop(ValueOrThrow(ResizeBicubic(image, resized.width, resized.height)));
  const at::Tensor out = at::empty({1, 3, cropped.height, cropped.width}, at::kFloat);
  auto* to = out.mutable_data_ptr<float>();
  for (size_t channel = 0; channel < 3; ++channel) {
    std::array<float, 256> values{};
    for (size_t byte = 0; byte < values.size(); ++byte) {
      const auto value = static_cast<float>(static_cast<double>(byte) * scale);
      values[byte] = normalizes_ ? (value - mean_[channel]) / std_[channel] : value;
    }
    for (size_t i = channel; i < cropped.rgb.size(); i += 3) *to++ = values[cropped.rgb[i]];
  }
  return out;
}

at::Tensor ImageProcessor::Process(const RgbImage& image) const {
  if (Trace::Current() == nullptr) return Make(image, rescale_factor_);
  const HostScope host;
  const Size size = crops_ ? crop_ : Resized({image.height, image.width});
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
