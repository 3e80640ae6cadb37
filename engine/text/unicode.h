// The little of Unicode 17.0 that tokenizers need: UTF-8, white space, word characters and extended
// grapheme clusters (UAX #29, rules GB3 to GB13). All functions are pure and thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace kino::engine {

// Grapheme_Cluster_Break, with Indic_Conjunct_Break and Extended_Pictographic folded in.
// make_unicode_tables.py writes these numbers.
enum class GraphemeClass : uint8_t {
  kOther = 0,
  kCr = 1,
  kLf = 2,
  kControl = 3,
  kExtend = 4,
  kExtendOutsideConjunct = 5,  // Extend that ends an Indic conjunct: U+200C
  kConjunctLinker = 6,
  kZwj = 7,
  kSpacingMark = 8,
  kPrepend = 9,
  kHangulL = 10,
  kHangulV = 11,
  kHangulT = 12,
  kHangulLv = 13,
  kHangulLvt = 14,
  kRegionalIndicator = 15,
  kPictographic = 16,
  kConjunctConsonant = 17,
};

// The index of the first byte that is not part of well-formed UTF-8 (surrogates, overlong forms and
// values past U+10FFFF are not), or text.size() when all of it is.
size_t Utf8ErrorOffset(std::string_view text);

// The number of bytes of the UTF-8 sequence that starts with `lead`. REQUIRES: lead starts a
// well-formed sequence.
size_t Utf8Length(char lead);

// The code point at text[*pos]; moves *pos past it. REQUIRES: text is well-formed, *pos starts a
// code point.
char32_t DecodeUtf8(std::string_view text, size_t* pos);

// Appends the code point. REQUIRES: it is none of the surrogates, and at most U+10FFFF.
void AppendUtf8(char32_t c, std::string& to);

// The bytes of a malformed sequence that decoders replace by one U+FFFD (Unicode 14.0, section 3.9,
// "maximal subparts"). REQUIRES: no well-formed sequence starts at bytes[0].
size_t MalformedUtf8Length(std::string_view bytes);

GraphemeClass GraphemeClassOf(char32_t c);

// The end of the extended grapheme cluster that starts at `begin`. REQUIRES: text is well-formed,
// begin is the start of a cluster, begin < text.size().
size_t GraphemeEnd(std::string_view text, size_t begin);

// The White_Space property.
bool IsWhiteSpace(char32_t c);

// \w of UTS #18: Alphabetic, Mark, Decimal_Number, Connector_Punctuation or Join_Control.
bool IsWordCharacter(char32_t c);

}  // namespace kino::engine
