#include "engine/core/tensor_file.h"

#include <array>
#include <fstream>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "engine/core/gguf.h"
#include "engine/core/safetensors.h"
#include "engine/core/status.h"

namespace kino::engine {

absl::StatusOr<std::shared_ptr<const TensorFile>> TensorFile::Open(const std::string& path) {
  std::array<char, 9> start{};
  std::ifstream(path, std::ios::binary).read(start.data(), start.size());
  const absl::string_view magic(start.data(), start.size());
  if (absl::StartsWith(magic, "GGUF")) {
    KINO_ASSIGN_OR_RETURN(std::unique_ptr<GgufFile> file, GgufFile::Open(path));
    return std::shared_ptr<const TensorFile>(std::move(file));
  }
  // A zip archive, or the first opcode of a pickle; a safetensors header may begin alike, but its
  // ninth byte is a brace.
  if ((absl::StartsWith(magic, "PK\x03\x04") || magic[0] == '\x80') && magic[8] != '{') {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", path, "' holds pickled weights, which Kino never reads: convert them to safetensors"));
  }
  KINO_ASSIGN_OR_RETURN(std::unique_ptr<SafetensorsFile> file, SafetensorsFile::Open(path));
  return std::shared_ptr<const TensorFile>(std::move(file));
}

}  // namespace kino::engine
