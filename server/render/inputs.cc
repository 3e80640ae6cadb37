#include "server/render/inputs.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/media/npy.h"
#include "server/command_line/input.h"
#include "server/convert/condition_media.h"
#include "server/convert/json.h"

namespace kino::render {
namespace {

namespace fs = std::filesystem;

// Larger ones are no frames anyone can use here.
constexpr int64_t kMaxSidePx = 1 << 16;

absl::StatusOr<engine::MediaInput> ReadNpyFrames(const std::string& path,
                                                 engine::ConditionKind kind) {
  auto array = engine::ReadNpy(path);
  if (!array.ok()) return array.status();
  std::vector<int64_t> shape = array->shape;
  if (shape.size() == 3) shape.insert(shape.begin(), 1);
  const bool has_shape = shape.size() == 4 && shape[3] == 3 && shape[0] > 0 && shape[1] > 0 &&
                         shape[2] > 0 && shape[0] <= kMaxSidePx && shape[1] <= kMaxSidePx &&
                         shape[2] <= kMaxSidePx;
  if (!has_shape || array->type != engine::NpyType::kUint8) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected uint8 of [H, W, 3] or [T, H, W, 3], got ",
                     array->type == engine::NpyType::kUint8 ? "uint8" : "float32", " of [",
                     absl::StrJoin(array->shape, ", "), "]"));
  }
  if (kind == engine::ConditionKind::kImage && shape[0] != 1) {
    return absl::InvalidArgumentError(absl::StrCat("expected an image, got ", shape[0], " frames"));
  }
  engine::MediaInput media;
  media.num_frames = static_cast<int>(shape[0]);
  media.height = static_cast<int>(shape[1]);
  media.width = static_cast<int>(shape[2]);
  media.rgb.assign(array->data.begin(), array->data.end());
  return media;
}

absl::StatusOr<engine::MediaInput> ReadCondition(const v1::Condition& condition,
                                                 const fs::path& folder) {
  const engine::ConditionKind kind =
      condition.kind() == v1::Condition::IMAGE   ? engine::ConditionKind::kImage
      : condition.kind() == v1::Condition::VIDEO ? engine::ConditionKind::kVideo
                                                 : engine::ConditionKind::kControlVideo;
  switch (condition.source_case()) {
    case v1::Condition::kPath: {
      const fs::path path = folder / condition.path();
      if (path.extension() == ".npy") return ReadNpyFrames(path.string(), kind);
      return convert::DecodeCondition(path.string(), kind, media::DecodeOptions());
    }
    case v1::Condition::kData:
      return convert::DecodeConditionBytes(condition.data(), kind, media::DecodeOptions());
    default:
      return absl::InvalidArgumentError(
          "expected path or data: kino-render has no uploaded assets");
  }
}

}  // namespace

absl::StatusOr<v1::GenerateRequest> ReadRequest(const std::string& path) {
  const absl::StatusOr<std::string> text = command_line::ReadInputText(path);
  if (!text.ok()) {
    return absl::NotFoundError(absl::StrCat("request ", std::string(text.status().message())));
  }
  return convert::FromJson(*text);
}

absl::StatusOr<std::vector<engine::MediaInput>> ReadConditions(const v1::GenerateRequest& request,
                                                               const std::string& request_file) {
  const fs::path folder = fs::path(request_file).parent_path();
  std::vector<engine::MediaInput> media;
  for (int i = 0; i < request.conditions_size(); ++i) {
    auto input = ReadCondition(request.conditions(i), folder);
    if (!input.ok()) {
      return absl::Status(
          input.status().code(),
          absl::StrCat("conditions[", i, "]: ", std::string(input.status().message())));
    }
    media.push_back(*std::move(input));
  }
  return media;
}

void TellSizes(const std::vector<engine::MediaInput>& media, engine::Request& request) {
  for (size_t i = 0; i < media.size(); ++i) {
    request.conditions[i].size = engine::VideoSize{
        .height = media[i].height, .width = media[i].width, .num_frames = media[i].num_frames};
    if (media[i].fps > 0) request.conditions[i].fps = media[i].fps;
  }
}

}  // namespace kino::render
