#include "engine/text/unicode.h"

#include <algorithm>

#include "engine/text/class_boundaries.h"
#include "engine/text/unicode_tables.h"

namespace kino::engine {
namespace {

uint8_t Byte(std::string_view text, size_t i) { return static_cast<uint8_t>(text[i]); }

bool IsContinuation(std::string_view text, size_t i) {
  return i < text.size() && (Byte(text, i) & 0xC0) == 0x80;
}

// Length of the well-formed sequence at text[i], 0 when there is none (Unicode standard, table
// 3-7).
size_t WellFormedLength(std::string_view text, size_t i) {
  const uint8_t lead = Byte(text, i);
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4) return 0;
  if (!IsContinuation(text, i + 1)) return 0;
  const uint8_t second = Byte(text, i + 1);
  if (lead < 0xE0) return 2;
  if (!IsContinuation(text, i + 2)) return 0;
  if (lead < 0xF0) {
    if (lead == 0xE0 && second < 0xA0) return 0;  // overlong
    if (lead == 0xED && second > 0x9F) return 0;  // surrogates
    return 3;
  }
  if (!IsContinuation(text, i + 3)) return 0;
  if (lead == 0xF0 && second < 0x90) return 0;  // overlong
  if (lead == 0xF4 && second > 0x8F) return 0;  // past U+10FFFF
  return 4;
}

// What the rules must remember of the cluster so far. Looking back never leaves the cluster: all
// that GB9c, GB11 and GB12 look back over is joined to it already.
struct ClusterState {
  GraphemeClass last = GraphemeClass::kOther;
  bool has_consonant = false;          // ConjunctConsonant (Extend | Linker)*
  bool has_linker = false;             // ... at least one Linker among them
  bool has_pictograph = false;         // Pictographic Extend*
  bool has_joined_pictograph = false;  // Pictographic Extend* ZWJ
  bool has_odd_indicators = false;

  void Add(GraphemeClass c) {
    using enum GraphemeClass;
    const bool is_extend = c == kExtend || c == kExtendOutsideConjunct || c == kConjunctLinker;
    has_joined_pictograph = c == kZwj && has_pictograph;
    has_pictograph = c == kPictographic || (has_pictograph && is_extend);
    if (c == kConjunctConsonant) {
      has_consonant = true;
      has_linker = false;
    } else if (c == kConjunctLinker) {
      has_linker = has_consonant;
    } else if (c != kExtend && c != kZwj) {
      has_consonant = false;
      has_linker = false;
    }
    has_odd_indicators = c == kRegionalIndicator && !has_odd_indicators;
    last = c;
  }

  bool BreaksBefore(GraphemeClass c) const {
    using enum GraphemeClass;
    if (last == kCr && c == kLf) return false;                        // GB3
    if (last == kControl || last == kCr || last == kLf) return true;  // GB4
    if (c == kControl || c == kCr || c == kLf) return true;           // GB5
    if (last == kHangulL) {                                           // GB6
      if (c == kHangulL || c == kHangulV || c == kHangulLv || c == kHangulLvt) return false;
    }
    if (last == kHangulLv || last == kHangulV) {  // GB7
      if (c == kHangulV || c == kHangulT) return false;
    }
    if ((last == kHangulLvt || last == kHangulT) && c == kHangulT) return false;  // GB8
    switch (c) {
      case kExtend:
      case kExtendOutsideConjunct:
      case kConjunctLinker:
      case kZwj:          // GB9
      case kSpacingMark:  // GB9a
        return false;
      default:
        break;
    }
    if (last == kPrepend) return false;                       // GB9b
    if (c == kConjunctConsonant) return !has_linker;          // GB9c
    if (c == kPictographic) return !has_joined_pictograph;    // GB11
    if (c == kRegionalIndicator) return !has_odd_indicators;  // GB12, GB13
    return true;
  }
};

}  // namespace

size_t Utf8ErrorOffset(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    const size_t length = WellFormedLength(text, i);
    if (length == 0) return i;
    i += length;
  }
  return text.size();
}

size_t Utf8Length(char lead) {
  const uint8_t byte = static_cast<uint8_t>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

void AppendUtf8(char32_t c, std::string& to) {
  const auto put = [&to](char32_t byte) { to += static_cast<char>(byte); };
  const auto follow = [&](int shift) { put(0x80 | (c >> shift & 0x3F)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6);
    follow(0);
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12);
    follow(6);
    follow(0);
  } else {
    put(0xF0 | c >> 18);
    follow(12);
    follow(6);
    follow(0);
  }
}

size_t MalformedUtf8Length(std::string_view bytes) {
  const uint8_t lead = Byte(bytes, 0);
  if (lead < 0xC2 || lead > 0xF4 || !IsContinuation(bytes, 1)) return 1;
  const uint8_t second = Byte(bytes, 1);
  if ((lead == 0xE0 && second < 0xA0) || (lead == 0xED && second > 0x9F) ||
      (lead == 0xF0 && second < 0x90) || (lead == 0xF4 && second > 0x8F)) {
    return 1;
  }
  return lead >= 0xF0 && IsContinuation(bytes, 2) ? 3 : 2;
}

char32_t DecodeUtf8(std::string_view text, size_t* pos) {
  const size_t i = *pos;
  const size_t length = Utf8Length(text[i]);
  *pos = i + length;
  char32_t c = Byte(text, i);
  if (length == 1) return c;
  c &= 0xFFu >> (length + 1);
  for (size_t k = 1; k < length; ++k) c = c << 6 | (Byte(text, i + k) & 0x3Fu);
  return c;
}

GraphemeClass GraphemeClassOf(char32_t c) {
  if (c >= 0x20 && c < 0x7F) return GraphemeClass::kOther;
  if (c >= 0xAC00 && c <= 0xD7A3) {  // Hangul syllables: each 28th has no final consonant
    return (c - 0xAC00) % 28 == 0 ? GraphemeClass::kHangulLv : GraphemeClass::kHangulLvt;
  }
  return static_cast<GraphemeClass>(ClassOf(c, {kGraphemeBoundaries, kGraphemeBoundaryCount}));
}

size_t GraphemeEnd(std::string_view text, size_t begin) {
  size_t pos = begin;
  ClusterState state;
  state.Add(GraphemeClassOf(DecodeUtf8(text, &pos)));
  while (pos < text.size()) {
    size_t next = pos;
    const GraphemeClass c = GraphemeClassOf(DecodeUtf8(text, &next));
    if (state.BreaksBefore(c)) break;
    state.Add(c);
    pos = next;
  }
  return pos;
}

bool IsWhiteSpace(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool IsWordCharacter(char32_t c) {
  const uint32_t* end = kWordBoundaries + kWordBoundaryCount;
  return (std::upper_bound(kWordBoundaries, end, static_cast<uint32_t>(c)) - kWordBoundaries) % 2 ==
         1;
}

}  // namespace kino::engine
