#include "server/convert/trace_context.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace kino::convert {
namespace {

// VERSION-TRACE-PARENT-FLAGS.
constexpr size_t kTrace = 3, kTraceSize = 32;
constexpr size_t kParent = kTrace + kTraceSize + 1, kParentSize = 16;
constexpr size_t kFlags = kParent + kParentSize + 1, kFlagsSize = 2;
constexpr size_t kSize = kFlags + kFlagsSize;

bool IsHex(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isdigit(static_cast<unsigned char>(c)) || (c >= 'a' && c <= 'f');
  });
}

bool IsId(absl::string_view text) {
  return IsHex(text) && text.find_first_not_of('0') != absl::string_view::npos;
}

}  // namespace

bool IsTraceparent(absl::string_view text) {
  if (text.size() < kSize) return false;
  const absl::string_view version = text.substr(0, 2);
  if (!IsHex(version) || version == "ff") return false;
  // Later versions may say more behind another dash.
  if (text.size() > kSize && (version == "00" || text[kSize] != '-')) return false;
  return text[kTrace - 1] == '-' && IsId(text.substr(kTrace, kTraceSize)) &&
         text[kParent - 1] == '-' && IsId(text.substr(kParent, kParentSize)) &&
         text[kFlags - 1] == '-' && IsHex(text.substr(kFlags, kFlagsSize));
}

std::string TraceForLog(const v1::GenerateRequest& request) {
  if (!IsTraceparent(request.traceparent())) return "";
  return absl::StrCat(", trace ", request.traceparent().substr(kTrace, kTraceSize));
}

}  // namespace kino::convert
