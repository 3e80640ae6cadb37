// Text made plain, as Python 3.11 (Unicode 14.0), ftfy 6.3 and beautifulsoup4 4.15 do it. Pure
// functions, thread-safe. All text is UTF-8.
#pragma once

#include <string>
#include <string_view>

namespace kino::engine {

// str.lower.
std::string LowerCase(std::string_view text);

// str.strip.
std::string_view Strip(std::string_view text);

// urllib.parse.unquote_plus: + is a space, %41 is A; bytes that are no UTF-8 become U+FFFD.
std::string UnquotePlus(std::string_view text);

// html.unescape.
std::string UnescapeHtml(std::string_view text);

// BeautifulSoup(html, "html.parser").text: without tags, comments and declarations, scripts, styles
// and ruby. Python refuses a marked section that has none of SGML's names; here it and what follows
// stay as they are.
std::string HtmlText(std::string_view html);

// unicodedata.normalize("NFC").
std::string NormalizeNfc(std::string_view text);

// ftfy.fix_text, but for mojibake: entities, ligatures, widths, quotes, line breaks, controls, NFC.
std::string RepairText(std::string_view text);

}  // namespace kino::engine
