#include "server/command_line/byte_size.h"

#include <cmath>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace kino::command_line {
namespace {

constexpr int64_t kKi = 1024;
constexpr int64_t kK = 1000;
// Longer suffixes first: "MB" ends with no other unit, but a bare "B" is none.
constexpr std::pair<const char*, int64_t> kUnits[] = {
    {"KiB", kKi}, {"MiB", kKi* kKi}, {"GiB", kKi* kKi* kKi}, {"TiB", kKi* kKi* kKi* kKi},
    {"KB", kK},   {"MB", kK* kK},    {"GB", kK* kK* kK},     {"TB", kK* kK* kK* kK},
    {"K", kK},    {"M", kK* kK},     {"G", kK* kK* kK},      {"T", kK* kK* kK* kK},
};

absl::Status BadSize(const std::string& text) {
  return absl::InvalidArgumentError(absl::StrCat("expected ", kByteSizeForm, ", got '", text, "'"));
}

}  // namespace

absl::StatusOr<int64_t> ParseByteSize(const std::string& text) {
  // strtod's other forms ("inf", "0x1p3", " 1") are none of ours.
  if (text.find_first_not_of("0123456789.KMGTiB") != std::string::npos) return BadSize(text);
  for (const auto& [unit, bytes] : kUnits) {
    if (!absl::EndsWith(text, unit)) continue;
    const std::string number = text.substr(0, text.size() - std::string(unit).size());
    double value = 0;
    if (!absl::SimpleAtod(number, &value) || !(value >= 0)) return BadSize(text);
    const double total = std::round(value * static_cast<double>(bytes));
    // 2^63, the first that does not fit.
    if (total >= 9223372036854775808.0) return BadSize(text);
    return static_cast<int64_t>(total);
  }
  int64_t value = 0;
  if (!absl::SimpleAtoi(text, &value) || value < 0) return BadSize(text);
  return value;
}

std::string FormatByteSize(int64_t bytes) {
  const double value = static_cast<double>(bytes);
  if (bytes >= kKi * kKi * kKi) return absl::StrFormat("%.2f GiB", value / (kKi * kKi * kKi));
  if (bytes >= kKi * kKi) return absl::StrFormat("%.1f MiB", value / (kKi * kKi));
  if (bytes >= kKi) return absl::StrFormat("%.1f KiB", value / kKi);
  return absl::StrCat(bytes, " B");
}

}  // namespace kino::command_line
