// The victim of crash_test.cc: opens the store named by its argument and works until it is killed.
// Each acknowledged operation is told by one line on stdout, written after the acknowledgement: "S
// id" submitted, "D id" committed, "X id" cancelled.
#include <unistd.h>

#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "scheduler/clock.h"
#include "scheduler/random.h"
#include "scheduler/store/sqlite/open.h"
#include "tests/scheduler/store/claim_next.h"

namespace kino::scheduler {
namespace {

void Tell(char what, const std::string& id) {
  const std::string line = std::string(1, what) + " " + id + "\n";
  // One write of less than PIPE_BUF bytes is whole or absent.
  if (write(STDOUT_FILENO, line.data(), line.size()) < 0) _exit(3);
}

void Work(JobStore& store, const std::string& worker) {
  for (int i = 0;; ++i) {
    NewJob job;
    job.tenant = "default";
    job.model = worker;
    job.request = std::string(static_cast<size_t>(100 * (i % 50)), 'x');
    job.labels = {{"i", std::to_string(i)}};
    const auto submitted = store.Submit(job);
    if (!submitted.ok()) _exit(4);
    Tell('S', submitted->job.id);
    if (i % 4 == 1) {
      if (!store.Cancel("default", submitted->job.id).ok()) _exit(5);
      Tell('X', submitted->job.id);
    } else if (i % 4 == 2) {
      const auto claim = ClaimNext(store, {.name = worker, .models = {worker}});
      if (!claim.ok()) _exit(6);
      if (!claim->has_value()) continue;
      const auto done =
          store.Commit((*claim)->ref, {.file_name = (*claim)->ref.job_id + ".mp4"}, "stats");
      if (!done.ok()) _exit(7);
      Tell('D', done->id);
    }
  }
}

}  // namespace
}  // namespace kino::scheduler

int main(int argc, char** argv) {
  using namespace kino::scheduler;
  if (argc != 2) return 2;
  SystemClock clock;
  SystemRandom random;
  auto store = OpenSqliteJobStore({.path = argv[1]}, {}, clock, random);
  if (!store.ok()) {
    std::fprintf(stderr, "%s\n", store.status().ToString().c_str());
    return 1;
  }
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] { Work(**store, "worker-" + std::to_string(t)); });
  }
  for (std::thread& thread : threads) thread.join();
}
