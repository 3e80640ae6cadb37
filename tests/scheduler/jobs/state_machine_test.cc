#include "scheduler/jobs/state_machine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <iostream>
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
    {"RUNNING", "attempt lost", "QUEUED"},
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
  EXPECT_EQ(pairs, 49);
  EXPECT_EQ(found, kExpected);
}

TEST(StateMachineTest, TerminalStatesAreNeverLeft) {
  for (const JobState from : kAllJobStates) {
    for (const JobTrigger trigger : kAllJobTriggers) {
      if (IsTerminal(from)) {
        EXPECT_FALSE(NextState(from, trigger)) << JobStateName(from);
      }
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

}  // namespace
}  // namespace kino::scheduler
