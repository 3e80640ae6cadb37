#include "engine/text/image_processor_config.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/core/status.h"

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

using Size = ImageProcessorConfig::Size;

// A number alone is a square's side or, unless `square`, the shortest edge.
absl::StatusOr<Size> ReadSize(const nlohmann::json& json, const char* key, bool square,
                              const Size& fallback, const std::string& path) {
  const auto found = json.find(key);
  if (found == json.end() || found->is_null()) return fallback;
  Size size;
  if (!found->is_object()) {
    ConfigReader reader(json, path);
    const int side = reader.Within(key, 0, 1, kLargestSide);
    KINO_RETURN_IF_ERROR(reader.status());
    if (square) return Size{.height = side, .width = side};
    return Size{.shortest_edge = side};
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

}  // namespace

absl::StatusOr<ImageProcessorConfig> ImageProcessorConfig::FromJson(const nlohmann::json& json,
                                                                    const std::string& path) {
  constexpr int kSide = 224;
  ConfigReader reader(json, path);
  const std::string type =
      reader.Get("image_processor_type", reader.Get("feature_extractor_type", std::string()));
  KINO_RETURN_IF_ERROR(reader.status());
  KINO_ASSIGN_OR_RETURN(const Defaults defaults, DefaultsOf(type, path));
  const Size square = {.height = kSide, .width = kSide};
  ImageProcessorConfig config;
  KINO_ASSIGN_OR_RETURN(
      config.size,
      ReadSize(json, "size", false, defaults.crops ? Size{.shortest_edge = kSide} : square, path));
  KINO_ASSIGN_OR_RETURN(config.crop, ReadSize(json, "crop_size", true, square, path));
  config.crops = reader.Get("do_center_crop", defaults.crops);
  const bool rescales = reader.Get("do_rescale", true);
  const double factor = reader.Get("rescale_factor", 1.0 / 255);
  config.rescale_factor = rescales ? factor : 1.0;
  config.normalizes = reader.Get("do_normalize", true);
  const bool resizes = reader.Get("do_resize", true);
  const int filter = reader.Get("resample", kBicubic);
  KINO_ASSIGN_OR_RETURN(config.mean, ReadChannels(reader, "image_mean", defaults.mean, path));
  KINO_ASSIGN_OR_RETURN(config.stddev, ReadChannels(reader, "image_std", defaults.std, path));
  KINO_RETURN_IF_ERROR(reader.status());
  if (!resizes || filter != kBicubic) {
    return absl::UnimplementedError(
        absl::StrCat(path, resizes ? absl::StrCat(": resample ", filter) : ": do_resize false",
                     ", expected a resize with filter ", kBicubic, " (bicubic)"));
  }
  if (std::any_of(config.stddev.begin(), config.stddev.end(),
                  [](float value) { return !(value > 0); })) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": a value of 'image_std' is not positive"));
  }
  return config;
}

bool ImageProcessorConfig::Gives(int side) const {
  const Size& out = crops ? crop : size;
  return out.height == side && out.width == side;
}

}  // namespace kino::engine
