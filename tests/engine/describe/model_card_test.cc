#include "engine/describe/model_card.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/support/temp_dir.h"

namespace kino::engine {
namespace {

using ::kino::testing::TempDir;

struct CardCase {
  const char* text;
  const char* license;
  const char* license_link;
};

class ModelCardTest : public ::testing::TestWithParam<CardCase> {};

TEST_P(ModelCardTest, SaysTheLicence) {
  const ModelCard card = ParseModelCard(GetParam().text);
  EXPECT_EQ(card.license, GetParam().license) << GetParam().text;
  EXPECT_EQ(card.license_link, GetParam().license_link) << GetParam().text;
}

INSTANTIATE_TEST_SUITE_P(
    Cards, ModelCardTest,
    ::testing::Values(
        CardCase{"---\nlicense: apache-2.0\nlanguage:\n- en\n---\n# A model\n", "apache-2.0", ""},
        CardCase{"---\r\nlicense: other\r\nlicense_name: ltxv-1\r\nlicense_link: LICENSE.md\r\n---",
                 "ltxv-1", "LICENSE.md"},
        CardCase{
            "\xef\xbb\xbf---\nlicense_link: 'https://a/b#c'\nlicense: \"other\"  # theirs\n...\n",
            "other", "https://a/b#c"},
        CardCase{"---\nlicense: mit # free\nlicense_name: mine\n---\n", "mit", ""},
        CardCase{"---\nlicense_name:  CogVideoX LICENSE\n---\n", "CogVideoX LICENSE", ""},
        CardCase{"---\nlicense: a\nlicense: b\n---\n", "a", ""},
        // No escape sequence reaches a terminal.
        CardCase{"---\nlicense: a\x1b[2Jb\xc3\xa9\x7f\n---\n", "a[2Jb", ""},
        // Of other keys, lists and blocks nothing.
        CardCase{"---\ndata:\n  license: a\nxlicense: b\nlicense_: c\n---\n", "", ""},
        CardCase{"---\nlicense:\n- mit\n---\n", "", ""},
        CardCase{"---\nlicense: [mit]\n---\n", "", ""},
        CardCase{"---\nlicense: |\n  mit\n---\n", "", ""},
        CardCase{"---\nlicense:mit\n---\n", "", ""}, CardCase{"---\nlicense: 'open\n---\n", "", ""},
        // What is no front matter.
        CardCase{"", "", ""}, CardCase{"---", "", ""}, CardCase{"---\nlicense: mit\n", "", ""},
        CardCase{"# A model\n---\nlicense: mit\n---\n", "", ""},
        CardCase{"\n---\nlicense: mit\n---\n", "", ""},
        CardCase{"---\n---\nlicense: mit\n---\n", "", ""}));

TEST(ModelCardFileTest, IsTheFoldersReadme) {
  const TempDir folder;
  EXPECT_EQ(ReadModelCard(folder.path()).license, "");
  folder.Write("README.md", "---\nlicense: mit\n---\n");
  EXPECT_EQ(ReadModelCard(folder.path()).license, "mit");
  EXPECT_EQ(ReadModelCard(folder.path() + "/none").license, "");
  // A long text behind it does not matter; front matter that goes on and on is none.
  folder.Write("README.md", "---\nlicense: mit\n---\n" + std::string(1 << 20, 'x'));
  EXPECT_EQ(ReadModelCard(folder.path()).license, "mit");
  folder.Write("README.md", "---\nlicense: mit\n" + std::string(1 << 20, '\n') + "---\n");
  EXPECT_EQ(ReadModelCard(folder.path()).license, "");
  folder.Write("README.md", "---\nlicense: " + std::string(5000, 'x') + "\n---\n");
  EXPECT_EQ(ReadModelCard(folder.path()).license.size(), 512u);
}

TEST(ModelCardFileTest, WhatIsNoFileIsNotWaitedFor) {
  const TempDir folder;
  ASSERT_EQ(mkfifo((folder.path() + "/README.md").c_str(), 0600), 0);
  EXPECT_EQ(ReadModelCard(folder.path()).license, "");
}

}  // namespace
}  // namespace kino::engine
