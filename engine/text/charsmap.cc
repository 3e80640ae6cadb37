#include "engine/text/charsmap.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/text/unicode.h"

namespace kino::engine {
namespace {

// The longest cluster, in bytes, that is looked up as a whole.
constexpr size_t kMaxClusterBytes = 5;

uint32_t LittleEndian32(std::string_view bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = 4; i > 0; --i) value = value << 8 | static_cast<uint8_t>(bytes[at + i - 1]);
  return value;
}

// A unit of a Darts-clone double array: offset in bits 10..30 (shifted by 8 when bit 9 is set), bit
// 8 "a value follows", label in bits 0..7 with bit 31 marking a value unit.
uint32_t Offset(uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); }
bool HasLeaf(uint32_t unit) { return (unit >> 8 & 1) != 0; }
uint32_t Label(uint32_t unit) { return unit & (1u << 31 | 0xFF); }
uint32_t Value(uint32_t unit) { return unit & ~(1u << 31); }

bool IsPrintableAscii(char c) { return c >= 0x20 && c < 0x7F; }

}  // namespace

absl::StatusOr<Charsmap> Charsmap::Parse(std::string_view blob) {
  if (blob.size() < 4) {
    return absl::InvalidArgumentError(
        absl::StrCat("charsmap of ", blob.size(), " bytes, expected at least 4"));
  }
  // The reference reads size/4 whole units and takes the strings to start right after them.
  const size_t unit_count = LittleEndian32(blob, 0) / 4;
  if (unit_count == 0 || unit_count > (blob.size() - 4) / 4) {
    return absl::InvalidArgumentError(absl::StrCat("charsmap trie of ", unit_count,
                                                   " units, expected 1 to ", (blob.size() - 4) / 4,
                                                   " (what the charsmap's bytes hold)"));
  }
  Charsmap map;
  map.units_.reserve(unit_count);
  for (size_t i = 0; i < unit_count; ++i) map.units_.push_back(LittleEndian32(blob, 4 + 4 * i));
  map.strings_ = std::string(blob.substr(4 + 4 * unit_count));
  const size_t error = Utf8ErrorOffset(map.strings_);
  if (error != map.strings_.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("charsmap strings are not UTF-8 at their byte ", error));
  }
  return map;
}

std::optional<std::string_view> Charsmap::Replacement(std::string_view text) const {
  uint32_t node = Offset(units_[0]);
  for (const char c : text) {
    const uint8_t byte = static_cast<uint8_t>(c);
    if (byte == 0) return std::nullopt;
    node ^= byte;
    if (node >= units_.size()) return std::nullopt;
    const uint32_t unit = units_[node];
    if (Label(unit) != byte) return std::nullopt;
    node ^= Offset(unit);
    if (!HasLeaf(unit)) continue;
    if (node >= units_.size()) return std::nullopt;
    const uint32_t start = Value(units_[node]);
    // An index into the middle of a character would make ill-formed text; only a hostile file has
    // one.
    if (start > strings_.size()) return std::nullopt;
    if (start < strings_.size() && (static_cast<uint8_t>(strings_[start]) & 0xC0) == 0x80) {
      return std::nullopt;
    }
    const std::string_view rest = std::string_view(strings_).substr(start);
    return rest.substr(0, rest.find('\0'));
  }
  return std::nullopt;
}

std::string Charsmap::Normalize(std::string_view text) const {
  std::string out;
  out.reserve(text.size());
  size_t pos = 0;
  while (pos < text.size()) {
    // Two printable ASCII characters never share a cluster: no need to look their classes up.
    const bool is_plain =
        IsPrintableAscii(text[pos]) && (pos + 1 == text.size() || IsPrintableAscii(text[pos + 1]));
    const size_t end = is_plain ? pos + 1 : GraphemeEnd(text, pos);
    const std::string_view cluster = text.substr(pos, end - pos);
    pos = end;
    if (cluster.size() <= kMaxClusterBytes) {
      if (const auto replacement = Replacement(cluster)) {
        out += *replacement;
        continue;
      }
    }
    for (size_t i = 0; i < cluster.size();) {
      const std::string_view character = cluster.substr(i, Utf8Length(cluster[i]));
      i += character.size();
      out += Replacement(character).value_or(character);
    }
  }
  return out;
}

}  // namespace kino::engine
