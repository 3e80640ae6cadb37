// Captions against diffusers' own cleaning, with beautifulsoup4 and ftfy.
#include "engine/text/caption_cleaning.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "engine/core/json.h"
#include "engine/core/status_bridge.h"
#include "engine/text/plain_text.h"
#include "engine/text/unicode.h"
#include "tests/support/fixture_folder.h"

namespace kino::engine {
namespace {

using ::testing::HasSubstr;

nlohmann::json Captions() {
  FixtureFolder folder;
  folder.RunOracle("text/caption_fixtures.py", std::to_string(TestSeed()));
  const std::string text = folder.Read("captions.json");
  return nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
}

TEST(CaptionCleaningTest, CaptionsAreDiffusersButForMojibake) {
  const nlohmann::json captions = Captions();
  ASSERT_TRUE(captions.is_array());
  int compared = 0, with_mojibake = 0;
  for (const nlohmann::json& each : captions) {
    const std::string caption = each["caption"];
    SCOPED_TRACE(each["caption"].dump());
    EXPECT_EQ(CleanCaption(caption), each["without_encoding"].get<std::string>());
    EXPECT_EQ(LowerCaption(caption), each["lower"].get<std::string>());
    ++compared;
    if (each["clean"] != each["without_encoding"]) ++with_mojibake;
  }
  EXPECT_GT(compared, 2000);
  EXPECT_GT(with_mojibake, 5);
  EXPECT_LT(with_mojibake, 100);
}

TEST(CaptionCleaningTest, ALongCaptionOfOneKindTakesNoLongSearch) {
  for (const std::string piece :
       {"a", ".", "a.", "<", "<a", "<a b=", "&", "&#", "1", "-a", " ", "\"", "x."}) {
    std::string caption;
    while (caption.size() < 8192) caption += piece;
    SCOPED_TRACE(piece);
    CleanCaption(caption);
  }
}

TEST(CaptionCleaningTest, WhateverComesACleanCaptionIsUtf8) {
  std::mt19937 random(TestSeed());
  const std::vector<std::string> pieces = {
      "<",      ">",      "&",      "#",      ";",      "x",  "1",        "</",
      "<!",     "[",      "]",      "--",     "%",      "e",  "a=",       "\"",
      "'",      " ",      "\n",     "amp",    "script", "rt", "![cdata[", "\u00e9",
      "\u0301", "\uff21", "\u1100", "\u1161", ".com",   "@",  "+",        "\xf0\x9f\x98\x80"};
  for (int i = 0; i < 5000; ++i) {
    std::string caption;
    for (auto length = random() % 24; length > 0; --length)
      caption += pieces[random() % pieces.size()];
    SCOPED_TRACE(caption);
    const std::string clean = CleanCaption(caption);
    EXPECT_EQ(Utf8ErrorOffset(clean), clean.size());
  }
}

TEST(CaptionCleaningTest, WhatIsNotUtf8IsRefused) {
  for (const auto& clean : {CleanCaption, LowerCaption}) {
    try {
      clean("a \xff");
      ADD_FAILURE() << "it was taken";
    } catch (const StatusError& error) {
      EXPECT_EQ(error.status().code(), absl::StatusCode::kInvalidArgument);
      EXPECT_THAT(std::string(error.status().message()), HasSubstr("byte 2"));
    }
  }
}

TEST(PlainTextTest, AMarkedSectionThatPythonRefusesStaysAsItIs) {
  EXPECT_EQ(HtmlText("<b>a</b> <![odd[b]]> <i>c</i>"), "a <![odd[b]]> <i>c</i>");
}

// ftfy.fix_text, bs4 and html.unescape by themselves: what diffusers does behind them hides it.
TEST(PlainTextTest, EntitiesStayFromTheLineOnThatHasATag) {
  EXPECT_EQ(RepairText("&eacute;"), "\u00e9");
  EXPECT_EQ(RepairText("1 < 2\n&eacute;"), "1 < 2\n&eacute;");
  EXPECT_EQ(RepairText("&eacute;\n1 < 2\n&eacute;"), "\u00e9\n1 < 2\n&eacute;");
}

TEST(PlainTextTest, NumbersOfControlsAreWindows1252) {
  EXPECT_EQ(HtmlText("&#128; &#x85; &#159;"), "\u20ac \u2026 \u0178");
}

// White space that is alone between two tags is one; the first end tag of <br> is none to bs4.
TEST(PlainTextTest, AnEmptyTagMayBeClosedOnce) {
  EXPECT_EQ(HtmlText("<br></br>  x"), "  x");
  EXPECT_EQ(HtmlText("<br></br>  </br>x"), " x");
}

TEST(PlainTextTest, AMarkBehindAnotherOfItsClassIsNotComposed) {
  EXPECT_EQ(NormalizeNfc("d\u0301\u0307"), "d\u0301\u0307");
  EXPECT_EQ(NormalizeNfc("d\u0307\u0323"), "\u1e0d\u0307");
}

TEST(PlainTextTest, ANameMayBeginAWord) {
  EXPECT_EQ(UnescapeHtml("&ltx &gtx &ampx"), "<x >x &x");
  EXPECT_EQ(UnescapeHtml("&notit; &lx"), "\u00acit; &lx");
}

}  // namespace
}  // namespace kino::engine
