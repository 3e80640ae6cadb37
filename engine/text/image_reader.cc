#include "engine/text/image_reader.h"

#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/core/status.h"
#include "engine/text/clip_config.h"
#include "engine/text/image_processor_config.h"

namespace kino::engine {

std::string ImageReader::ProcessorPath(const std::string& folder) const {
  return absl::StrCat(folder, "/", processor, "/preprocessor_config.json");
}

absl::Status ImageReader::Check(const std::string& folder) const {
  const std::string path = absl::StrCat(folder, "/", encoder, "/config.json");
  KINO_ASSIGN_OR_RETURN(const nlohmann::json json, ReadJsonFile(path));
  ConfigReader type(json, path);
  type.Expect("model_type", {model_type});
  KINO_RETURN_IF_ERROR(type.status());
  KINO_ASSIGN_OR_RETURN(const auto config, VisionEncoderConfig::FromJson(json, path));
  KINO_ASSIGN_OR_RETURN(const auto pictures,
                        ReadConfig<ImageProcessorConfig>(ProcessorPath(folder)));
  if (pictures.Gives(config.image_size)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(ProcessorPath(folder), ": pictures do not come out with the ", config.image_size,
                   "x", config.image_size, " pixels that the image encoder takes (", path, ")"));
}

}  // namespace kino::engine
