// SIGKILL at random moments: every acknowledged operation is there when the store is opened again.
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <map>
#include <random>

#include "tests/scheduler/store/store_fixture.h"

namespace kino::scheduler {
namespace {

// Starts the child on `path`, kills it once it has told `lines` lines, and gives everything it
// told.
std::vector<std::string> RunAndKill(const std::string& path, int lines) {
  int ends[2];
  EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
  std::string program = KINO_BIN_DIR "/tests_scheduler_store_crash_child";
  std::string argument = path;
  char* arguments[] = {program.data(), argument.data(), nullptr};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  pid_t child = 0;
  EXPECT_EQ(posix_spawn(&child, program.c_str(), &actions, nullptr, arguments, environ), 0);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  std::vector<std::string> told;
  FILE* const output = fdopen(ends[0], "r");
  char line[256];
  while (std::fgets(line, sizeof(line), output) != nullptr) {
    told.emplace_back(line);
    if (static_cast<int>(told.size()) == lines) kill(child, SIGKILL);
  }
  std::fclose(output);
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
      << "the child ended by itself, wait status " << status;
  return told;
}

TEST(CrashTest, AcknowledgedOperationsSurviveSigkill) {
  const unsigned seed = std::random_device{}();
  std::cout << "seed " << seed << std::endl;
  std::mt19937 random(seed);
  ScratchFolder folder;
  const std::string path = folder.File("jobs.db");
  std::map<std::string, char> acked;
  for (int kills = 0; kills < 50 && !testing::Test::HasFailure(); ++kills) {
    SCOPED_TRACE(testing::Message() << "kill " << kills << ", seed " << seed);
    const int lines = std::uniform_int_distribution<int>(1, 80)(random);
    for (const std::string& line : RunAndKill(path, lines)) {
      ASSERT_EQ(line.size(), 29u) << line;
      acked[line.substr(2, 26)] = line[0];
    }
    SystemClock clock;
    SystemRandom tokens;
    auto store = OpenSqliteJobStore({.path = path}, {}, clock, tokens);
    ASSERT_TRUE(store.ok()) << store.status();
    for (const auto& [id, what] : acked) {
      const auto job = (*store)->GetAnyTenant(id);
      ASSERT_TRUE(job.ok()) << job.status();
      if (what == 'D') {
        EXPECT_EQ(job->state, JobState::kSucceeded);
        EXPECT_EQ(job->artifact->file_name, id + ".mp4");
      } else if (what == 'X') {
        EXPECT_EQ(job->state, JobState::kCancelled);
      }
      const auto events = (*store)->ReadEvents(id, 0, 100);
      ASSERT_TRUE(events.ok());
      ASSERT_EQ(static_cast<int64_t>(events->size()), job->state_number);
      for (size_t i = 0; i < events->size(); ++i) {
        EXPECT_EQ((*events)[i].number, static_cast<int64_t>(i) + 1);
      }
    }
    // What died while it ran is still leased, as a restarted frontend must find it.
    const auto all_running = (*store)->RunningAttempts();
    ASSERT_TRUE(all_running.ok()) << all_running.status();
    for (const RunningAttempt& running : *all_running) {
      EXPECT_TRUE((*store)->CheckAttempt(running.ref).ok());
      EXPECT_TRUE((*store)
                      ->Fail(running.ref, {.cause = FailureCause::kInterrupted,
                                           .error = absl::UnavailableError("x")})
                      .ok());
    }
  }
  std::cout << acked.size() << " acknowledged jobs, none lost" << std::endl;
  EXPECT_GT(acked.size(), 100u);
}

}  // namespace
}  // namespace kino::scheduler
