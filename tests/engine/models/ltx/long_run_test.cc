// The prompts of a long video's windows.
#include "engine/models/ltx/long_run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kino::engine {
namespace {

using ::testing::ElementsAre;

TEST(PromptSegmentsTest, AreWhatIsBetweenBarsWithoutWhiteSpaceAround) {
  EXPECT_THAT(PromptSegments("one"), ElementsAre("one"));
  EXPECT_THAT(PromptSegments(" a cat  walks |\ta dog\n"), ElementsAre("a cat  walks", "a dog"));
  EXPECT_THAT(PromptSegments("|a||"), ElementsAre("", "a", "", ""));
  EXPECT_THAT(PromptSegments(""), ElementsAre(""));
  // White space is Python's: an em space and a no-break space, not a zero-width one.
  EXPECT_THAT(PromptSegments("a\u2003|\u00a0b\u200b"), ElementsAre("a", "b\u200b"));
}

}  // namespace
}  // namespace kino::engine
