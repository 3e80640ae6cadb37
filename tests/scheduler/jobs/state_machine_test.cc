#include "scheduler/jobs/state_machine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iostream>
#include <iterator>
#include <set>
#include <tuple>

namespace kino::scheduler {
namespace {

// Written out anew, so that a changed table does not pass unnoticed.
const std::set<std::tuple<std::string, std::string, std::string>> kExpected = {
    {"QUEUED", "claimed", "RUNNING"},      {"QUEUED", "cancelled", "CANCELLED"},
    {"QUEUED", "expired", "EXPIRED"},      {"QUEUED", "failed", "FAILED"},
    {"RUNNING", "committed", "SUCCEEDED"}, {"RUNNING", "failed", "FAILED"},
    {"RUNNING", "cancelled", "CANCELLED"}, {"RUNNING", "quarantined", "QUARANTINED"},
    {"RUNNING", "attempt lost", "QUEUED"}, {"FAILED", "requeued", "QUEUED"},
    {"QUARANTINED", "requeued", "QUEUED"}, {"EXPIRED", "requeued", "QUEUED"},
};

TEST(StateMachineTest, EveryPairOfStateAndTriggerIsAsDesigned) {
  std::set<std::tuple<std::string, std::string, std::string>> found;
  int pairs = 0;
  for (const JobState from : kAllJobStates) {
    for (const JobTrigger trigger : kAllJobTriggers) {
      ++pairs;
      if (const auto to = NextState(from, trigger)) {
        found.emplace(JobStateName(from), JobTriggerName(trigger), JobStateName(*to));
      }
    }
  }
  EXPECT_EQ(pairs, 56);
  EXPECT_EQ(found, kExpected);
}

TEST(StateMachineTest, OnlyAnOperatorLeadsOutOfAnEndAndNotOutOfAResult) {
  for (const JobState from : kAllJobStates) {
    for (const JobTrigger trigger : kAllJobTriggers) {
      if (!IsTerminal(from) || !NextState(from, trigger)) continue;
      EXPECT_EQ(trigger, JobTrigger::kRequeued) << JobStateName(from);
      EXPECT_NE(from, JobState::kSucceeded);
      EXPECT_NE(from, JobState::kCancelled);
    }
  }
}

TEST(StateMachineTest, TableHasNoRowTwice) {
  std::set<std::pair<JobState, JobTrigger>> rows;
  for (const Transition& row : kTransitions) {
    EXPECT_TRUE(rows.emplace(row.from, row.trigger).second) << JobTriggerName(row.trigger);
  }
}

TEST(StateMachineTest, DiagramShowsEveryTransition) {
  const std::string diagram = TransitionDiagram();
  std::cout << diagram;
  for (const auto& [from, trigger, to] : kExpected) {
    EXPECT_THAT(diagram, testing::HasSubstr("    " + from + " --> " + to + ": " + trigger + "\n"));
  }
  EXPECT_THAT(diagram, testing::StartsWith("stateDiagram-v2\n"));
  EXPECT_THAT(diagram, testing::Not(testing::HasSubstr("unknown")));
}

TEST(StateMachineTest, ArchitectureShowsThisDiagram) {
  std::ifstream file(std::string(KINO_SOURCE_DIR) + "/ARCHITECTURE.md");
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  const size_t begin = text.find("stateDiagram-v2");
  ASSERT_NE(begin, std::string::npos);
  // Without the arrows to the end, which need no explanation there.
  std::string want = TransitionDiagram();
  want.resize(want.find("    SUCCEEDED --> [*]"));
  EXPECT_EQ(text.substr(begin, text.find("```", begin) - begin), want);
}

}  // namespace
}  // namespace kino::scheduler
