#include "engine/core/json.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>

#include "engine/core/git_lfs.h"

namespace kino::engine {

absl::StatusOr<nlohmann::json> ReadJsonFile(const std::string& path) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  if (error) return absl::NotFoundError(absl::StrCat("'", path, "': ", error.message()));
  if (size > (64u << 20)) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", path, "': ", size, " bytes of JSON, at most 64 MB accepted"));
  }
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  if (!file) return absl::PermissionDeniedError(absl::StrCat("'", path, "': cannot be read"));
  nlohmann::json json = nlohmann::json::parse(text.str(), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", path,
        IsGitLfsPointer(text.str()) ? absl::StrCat("' ", kGitLfsPointer) : "': not a JSON object"));
  }
  return json;
}

std::string ConfigReader::Short(const nlohmann::json& value) {
  std::string text = value.dump(-1, ' ', true);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

void ConfigReader::Expect(const char* key, const std::vector<std::string>& known) {
  const std::string value = Get(key, known.front());
  if (!status_.ok() || std::find(known.begin(), known.end(), value) != known.end()) return;
  status_ = absl::UnimplementedError(
      absl::StrCat(where_, ": '", key, "' is '", value, "', expected '", known.front(), "'"));
}

void ConfigReader::ExpectMultiples(const char* key, const std::vector<int>& values, int of,
                                   int high) {
  if (!status_.ok()) return;
  for (const int value : values) {
    if (value >= 1 && value <= high && value % of == 0) continue;
    status_ = absl::InvalidArgumentError(absl::StrCat(where_, ": '", key, "' has ", value,
                                                      ", expected multiples of ", of, ", ", of,
                                                      " to ", high));
    return;
  }
}

bool ConfigReader::Read(const nlohmann::json& json, bool& out) {
  if (!json.is_boolean()) return false;
  out = json.get<bool>();
  return true;
}

bool ConfigReader::Read(const nlohmann::json& json, int& out) {
  if (!json.is_number_integer()) return false;
  if (json.is_number_unsigned() && json.get<uint64_t>() > std::numeric_limits<int>::max())
    return false;
  const int64_t value = json.get<int64_t>();
  if (value < std::numeric_limits<int>::min() || value > std::numeric_limits<int>::max())
    return false;
  out = static_cast<int>(value);
  return true;
}

bool ConfigReader::Read(const nlohmann::json& json, double& out) {
  if (!json.is_number()) return false;
  out = json.get<double>();
  return std::isfinite(out);
}

bool ConfigReader::Read(const nlohmann::json& json, std::string& out) {
  if (!json.is_string()) return false;
  out = json.get<std::string>();
  return true;
}

}  // namespace kino::engine
