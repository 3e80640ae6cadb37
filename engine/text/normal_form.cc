#include "engine/text/normal_form.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "engine/text/caption_tables.h"
#include "engine/text/class_boundaries.h"
#include "engine/text/unicode.h"

namespace kino::engine {
namespace {

constexpr char32_t kHangul = 0xAC00, kL = 0x1100, kV = 0x1161, kT = 0x11A7;
constexpr char32_t kVCount = 21, kTCount = 28, kHangulCount = 11172;

bool IsUnknown(char32_t c, const NormalForms& forms) {
  return std::binary_search(forms.unknown.begin(), forms.unknown.end(), static_cast<uint32_t>(c));
}

void Decompose(char32_t c, const NormalForms& forms, std::u32string& out) {
  if (c >= kHangul && c < kHangul + kHangulCount) {
    const char32_t index = c - kHangul, tail = index % kTCount;
    out.push_back(kL + index / (kVCount * kTCount));
    out.push_back(kV + index % (kVCount * kTCount) / kTCount);
    if (tail > 0) out.push_back(kT + tail);
    return;
  }
  const Decomposition* const end = kDecompositions + kDecompositionCount;
  const Decomposition* const found = std::lower_bound(
      kDecompositions, end, c,
      [](const Decomposition& each, char32_t value) { return each.character < value; });
  if (found == end || found->character != c || IsUnknown(c, forms)) {
    out += c;
    return;
  }
  Decompose(found->first, forms, out);
  if (found->second != 0) out.push_back(found->second);
}

// 0: none.
char32_t Composed(char32_t first, char32_t second, const NormalForms& forms) {
  if (first >= kL && first < kL + 19 && second >= kV && second < kV + kVCount)
    return kHangul + ((first - kL) * kVCount + (second - kV)) * kTCount;
  if (first >= kHangul && first < kHangul + kHangulCount && (first - kHangul) % kTCount == 0 &&
      second > kT && second < kT + kTCount) {
    return first + (second - kT);
  }
  using Pairs = std::vector<std::pair<uint64_t, char32_t>>;
  static const Pairs& pairs = *[] {
    auto* made = new Pairs;
    for (size_t i = 0; i < kDecompositionCount; ++i) {
      const Decomposition& each = kDecompositions[i];
      if (each.is_made && each.second != 0)
        made->push_back({uint64_t{each.first} << 32 | each.second, each.character});
    }
    std::sort(made->begin(), made->end());
    return made;
  }();
  const std::pair<uint64_t, char32_t> wanted = {uint64_t{first} << 32 | second, 0};
  const auto found = std::lower_bound(pairs.begin(), pairs.end(), wanted);
  if (found == pairs.end() || found->first != wanted.first) return 0;
  return IsUnknown(found->second, forms) ? 0 : found->second;
}

// Marks behind a starter in the order of their classes.
void Order(std::u32string& parts, const NormalForms& forms) {
  const auto class_of = [&](char32_t c) { return ClassOf(c, forms.combining); };
  for (size_t i = 0; i < parts.size();) {
    if (class_of(parts[i]) == 0) {
      ++i;
      continue;
    }
    size_t end = i;
    while (end < parts.size() && class_of(parts[end]) != 0) ++end;
    std::stable_sort(parts.begin() + static_cast<std::ptrdiff_t>(i),
                     parts.begin() + static_cast<std::ptrdiff_t>(end),
                     [&](char32_t a, char32_t b) { return class_of(a) < class_of(b); });
    i = end;
  }
}

}  // namespace

void AppendLower(char32_t c, std::span<const LowerRun> runs, std::string& to) {
  if (c == 0x130) {
    to += "i\u0307";
    return;
  }
  const auto run =
      std::lower_bound(runs.begin(), runs.end(), c,
                       [](const LowerRun& each, char32_t value) { return each.last < value; });
  const bool is_listed = run != runs.end() && c >= run->first &&
                         (c - run->first) % static_cast<uint32_t>(run->step) == 0;
  AppendUtf8(is_listed ? static_cast<char32_t>(static_cast<int64_t>(c) + run->offset) : c, to);
}

std::string NormalizeNfc(std::string_view text, const NormalForms& forms) {
  std::u32string parts;
  for (size_t at = 0; at < text.size();) Decompose(DecodeUtf8(text, &at), forms, parts);
  Order(parts, forms);
  std::u32string out;
  size_t starter = std::u32string::npos;
  int last = 0;  // class of what stands between the starter and the next character
  for (const char32_t c : parts) {
    const int now = ClassOf(c, forms.combining);
    if (starter != std::u32string::npos && (last == 0 ? starter + 1 == out.size() : last < now)) {
      if (const char32_t made = Composed(out[starter], c, forms)) {
        out[starter] = made;
        continue;
      }
    }
    if (now == 0) starter = out.size();
    last = now;
    out += c;
  }
  std::string utf8;
  for (const char32_t c : out) AppendUtf8(c, utf8);
  return utf8;
}

}  // namespace kino::engine
