#include "engine/models/registry.h"

#include "absl/strings/str_cat.h"
#include "engine/models/allegro/pipeline.h"
#include "engine/models/cogvideox/pipeline.h"
#include "engine/models/hunyuan_video/pipeline.h"
#include "engine/models/ltx/pipeline.h"
#include "engine/models/mochi/pipeline.h"

namespace kino::engine {
namespace {

struct Entry {
  const char* family;
  absl::StatusOr<std::unique_ptr<Pipeline>> (*load)(const PipelineOptions&, EngineShared&);
};

constexpr Entry kFamilies[] = {
    {"ltx", LoadLtxPipeline},
    {"mochi", LoadMochiPipeline},
    {"allegro", LoadAllegroPipeline},
    {"cogvideox", LoadCogVideoXPipeline},
    {"hunyuan_video", LoadHunyuanVideoPipeline},
};

}  // namespace

absl::StatusOr<std::unique_ptr<Pipeline>> LoadPipeline(const std::string& family,
                                                       const PipelineOptions& options,
                                                       EngineShared& shared) {
  for (const Entry& entry : kFamilies) {
    if (family == entry.family) return entry.load(options, shared);
  }
  return absl::UnimplementedError(
      absl::StrCat("family '", family, "' has no pipeline in this build"));
}

}  // namespace kino::engine
