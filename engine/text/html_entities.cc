#include "engine/text/html_entities.h"

#include <algorithm>
#include <array>

#include "engine/text/caption_tables.h"

namespace kino::engine {

char32_t Windows1252(char32_t c) {
  static constexpr std::array<char16_t, 32> kCharacters = {
      0x20AC, 0x81,   0x201A, 0x0192, 0x201E, 0x2026, 0x2020, 0x2021, 0x02C6, 0x2030, 0x0160,
      0x2039, 0x0152, 0x8D,   0x017D, 0x8F,   0x90,   0x2018, 0x2019, 0x201C, 0x201D, 0x2022,
      0x2013, 0x2014, 0x02DC, 0x2122, 0x0161, 0x203A, 0x0153, 0x9D,   0x017E, 0x0178};
  return c >= 0x80 && c < 0xA0 ? kCharacters[c - 0x80] : c;
}

std::optional<std::string_view> EntityText(std::string_view name) {
  const HtmlEntity* const end = kHtmlEntities + kHtmlEntityCount;
  const HtmlEntity* const found = std::lower_bound(
      kHtmlEntities, end, name, [](const HtmlEntity& each, std::string_view value) {
        return std::string_view(each.name) < value;
      });
  if (found == end || found->name != name) return std::nullopt;
  return found->text;
}

}  // namespace kino::engine
